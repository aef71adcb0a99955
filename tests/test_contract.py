"""Promises about the package as a whole."""

import ast
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import random_layer

import fastrnn
from fastrnn import backends

PACKAGE = Path(fastrnn.__file__).parent

# Which modules of the package each may import; a test of a design is a table.
LAYERING = {
    "_version": set(),
    "errors": set(),
    "parametrizations": {"errors"},
    "spec": {"errors", "parametrizations"},
    "reference": {"spec"},
    "cores": {"errors", "_threads"},
    "backends": {"_version", "errors", "cores", "_blas", "_simd", "_threads"},
    "importers": {"errors", "parametrizations", "spec", "importers"},
    "files": {"errors"},
    "chain": {"errors", "_chain"},
    "streaming": {"errors", "chain", "_stepper"},
    "pool": {"errors", "chain", "_slots"},
    "layers": {"layers", "errors", "spec", "reference", "backends", "streaming", "pool", "_engine", "_pack"},
    "selftest": {"errors", "spec", "reference"},
    "saving": {"errors", "spec", "files", "importers", "selftest"},
    "model": {"errors", "spec", "chain", "layers", "pool", "saving", "selftest", "streaming"},
    "loading": {"errors", "spec", "backends", "importers", "layers", "model", "saving", "selftest"},
    "offline": {"offline", "errors", "backends", "files", "importers"},
    "terminal": {"errors"},
    "benchmark": {"benchmark", "_version", "errors", "spec", "backends", "chain", "layers", "model"}
    | {"terminal"},
    "demo": set(),
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "fastrnn" else [node.module]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_run_one_way():
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part not in LAYERING:
            assert part in ("__init__", "__main__", "cli")
            continue
        seen.add(part)
        for name in imports_of(path):
            if name.startswith("fastrnn."):
                assert name.split(".")[1] in LAYERING[part], f"{path.name} imports {name}"
    assert seen == set(LAYERING)


def test_public_names_are_these_and_documented():
    """An accidental export cannot ship."""
    public = {
        name
        for name, value in vars(fastrnn).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__"} == set(fastrnn.__all__)
    for name in public:
        assert getattr(fastrnn, name).__doc__, name


def test_import_brings_neither_torch_nor_scipy():
    absent = ("torch", "scipy", "rich", "fastrnn.benchmark")
    script = f"import sys, fastrnn.cli; print([m for m in {absent} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_model_runs_without_torch(golden):
    """Load and run while any import of torch fails."""
    script = f"""
import sys
sys.modules["torch"] = None
import fastrnn
model = fastrnn.load({str(golden / "files" / "lstm_zip.pt")!r})
print(model([[1.0, 2.0, 3.0]])[0].shape, "scipy" in sys.modules)
model = fastrnn.load({str(golden / "files" / "lstm_zip.pt")!r}, backend="blas")
print(model([[1.0, 2.0, 3.0]])[0].shape, "scipy" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = result.stdout.splitlines()
    assert second == "(1, 4) True"
    assert first == f"(1, 4) {not backends.ISAS}"  # only the blas backend needs it


def test_show_config_names_a_cap_that_caps(monkeypatch):
    if backends.SIMD_TABLES:
        monkeypatch.setenv("FASTRNN_ISA", "baseline")
        assert backends.config()["backend"] == "simd, with baseline: FASTRNN_ISA=baseline"
        monkeypatch.setattr(backends, "SIMD_TABLES", {"baseline": {}})
        monkeypatch.setenv("FASTRNN_ISA", backends.ISAS[-1])
        assert "of this processor" in backends.config()["backend"]
    monkeypatch.setenv("FASTRNN_NUM_THREADS", "1000")
    assert "the cores that this process may use" in backends.config()["threads"]


def test_show_config_says_what_was_picked(capsys):
    fastrnn.show_config()
    out = capsys.readouterr().out
    assert f"fastrnn: {fastrnn.__version__}" in out and (
        "backend: simd, with " in out or "backend: blas" in out
    )


@pytest.mark.parametrize("kind", ("RNN", "GRU", "LSTM"))
def test_threads_share_a_layer(rng, kind):
    """Eight threads on one layer, with inputs of different shapes: each gets its own numbers."""
    layer = random_layer(rng, kind, 5, 33, num_layers=2, bidirectional=True)
    inputs = [rng.standard_normal((7 + i, 1 + i % 3, 5)) for i in range(8)]
    wanted = [layer(x)[0] for x in inputs]
    failures = []

    def work(x, y):
        for _ in range(60):
            out = np.empty_like(y)
            if not np.array_equal(layer(x, out=out)[0], y):
                failures.append(x.shape)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
