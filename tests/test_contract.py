"""Promises about the package as a whole."""

import re
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import random_layer

import fastrnn
from fastrnn.engine import backends

# The sources, not what is installed: a wheel has none of the compiled modules' sources.
SOURCES = Path(__file__).parents[1] / "fastrnn"

# Which parts of the package each may import, itself aside; a test of a design is a table. From the bottom up.
LAYERING = {
    "_version": set(),
    "errors": set(),
    "arrays": set(),
    "checks": {"arrays", "errors"},
    "narrow": {"arrays", "errors"},
    "spec": set(),
    "graph": {"errors"},
    "structure": {"errors"},
    "terminal": {"errors"},
    "importers": {"arrays", "checks", "errors", "narrow", "spec", "graph", "structure"},
    "reference": {"arrays", "errors", "narrow", "spec", "importers"},
    "engine.array_kernels": set(),
    "engine.backend": set(),
    "engine.threads": {"checks", "errors"},
    "engine.simd": {"engine.array_kernels", "engine.backend"},
    "engine.blas": {"engine.backend", "engine.threads"},
    "engine": {"_version", "checks", "errors", "narrow", "engine.backend", "engine.blas", "engine.simd"}
    | {"engine.threads"},
    "operators": {"arrays", "checks", "errors", "narrow", "engine", "engine.array_kernels", "engine.backend"}
    | {"engine.threads"},
    "streaming": {"arrays", "checks", "errors", "engine", "engine.backend", "engine.threads", "operators"},
    "layers": {"arrays", "checks", "errors", "narrow", "spec", "importers", "reference", "engine"}
    | {"operators", "streaming"},
    "saving": {"arrays", "checks", "errors", "narrow", "spec", "graph", "structure", "reference"}
    | {"importers"},
    "program": {
        "arrays",
        "checks",
        "errors",
        "narrow",
        "spec",
        "graph",
        "structure",
        "reference",
        "engine",
        "engine.array_kernels",
        "engine.backend",
        "engine.simd",
        "layers",
        "operators",
        "saving",
        "streaming",
    },
    "loading": {"checks", "errors", "narrow", "spec", "importers", "engine", "layers", "program", "saving"},
}
# What stands above: it may import all of these, and `fastrnn` as users do.
ABOVE = {
    "benchmark": {"benchmark"},
    "comparison": {"benchmark", "comparison"},
    "demo": set(),
    "cli": {"benchmark", "cli", "comparison", "demo"},
    "__main__": {"cli"},
    "__init__": {"_built", "comparison"},
    "_built": set(),
}

IMPORT = re.compile(
    r"^\s*(?:from (?P<module>fastrnn[\w.]*) c?import (?P<names>\([^)]*\)|.*)"
    r"|c?import (?P<whole>fastrnn[\w.]*))",
    re.M,
)


def part_of(name):
    """The part of the package that a module belongs to, by its path below `fastrnn`."""
    parts = name.split(".")
    return next(
        (part for part in (".".join(parts[:2]), parts[0]) if part in LAYERING or part in ABOVE), parts[0]
    )


def imports_of(path):
    """The modules of the package that a file imports or cimports, below `fastrnn`; "" is the whole of it."""
    for match in IMPORT.finditer(path.read_text()):
        module = (match["module"] or match["whole"]).removeprefix("fastrnn").lstrip(".")
        if module or match["whole"]:
            yield module
        else:
            yield from re.findall(r"\w+", match["names"].split(" as ")[0])


def test_imports_run_one_way():
    """Those of compiled modules too."""
    seen = set()
    for path in (path for path in SOURCES.rglob("*") if path.suffix in (".py", ".pyi", ".pyx", ".pxd")):
        part = part_of(".".join(path.relative_to(SOURCES).with_suffix("").parts))
        seen.add(part)
        allowed = LAYERING[part] | {part} if part in LAYERING else {*LAYERING, "", *ABOVE[part]}
        for name in imports_of(path):
            assert part_of(name) in allowed, f"{path.relative_to(SOURCES)} imports fastrnn.{name}"
    assert seen == {*LAYERING, *ABOVE}


def test_the_table_runs_from_the_bottom_up():
    order = list(LAYERING)
    assert [(a, b) for a in order for b in LAYERING[a] if order.index(b) >= order.index(a)] == []


def test_stubtest_is_given_every_stub():
    """The command in the first line of its allowlist."""
    command = (Path(__file__).parent / "stubtest-allowlist.txt").read_text().splitlines()[0]
    stubs = [path.relative_to(SOURCES.parent).with_suffix("") for path in SOURCES.rglob("*.pyi")]
    assert re.findall(r"fastrnn\.\S+", command) == sorted(".".join(path.parts) for path in stubs)


def test_every_compiled_module_that_python_imports_has_a_stub():
    compiled = {path for path in SOURCES.rglob("*.pyx") if not path.with_suffix(".pyi").exists()}
    names = {".".join(path.relative_to(SOURCES).with_suffix("").parts) for path in compiled}
    for path in SOURCES.rglob("*.py"):
        assert not names & {*imports_of(path)}, f"{path.relative_to(SOURCES)} imports one without a stub"


def test_packages_that_list_their_modules_list_all():
    for path in SOURCES.rglob("__init__.py"):
        text = re.match(r'"""(.*?)"""', path.read_text(), re.S)[1]
        if "order of reading" in text or "order in which to read" in text:
            files = [file for file in path.parent.iterdir() if file.suffix in (".py", ".pyx", ".pxd")]
            listed = {*re.findall(r"\w+", text), "__init__", "__main__"}
            assert {file.stem for file in files} <= listed, path.parent


def test_a_source_tree_that_is_not_built_says_what_to_type(tmp_path):
    shutil.copytree(
        SOURCES, tmp_path / "fastrnn", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    (tmp_path / "setup.py").touch()
    command = [sys.executable, "-c", "import fastrnn"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: fastrnn: expected compiled modules, got a source tree without them")
    assert "`pip install -e .`" in last and result.returncode == 1


def test_public_names_are_these_and_documented():
    """An accidental export cannot ship."""
    for name in fastrnn.__all__:
        assert hasattr(fastrnn, name)  # those that are imported when they are asked for, too
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


def test_import_brings_nothing_that_few_programs_need():
    """Readers of files, and what takes long to import. Each is imported when it is first used."""
    late = (
        "dataclasses",
        "json",
        "numpy.typing",
        "pickletools",
        "safetensors",
        "tempfile",
        "threading",
        "zipfile",
    )
    script = f"""
import sys, numpy
before = set(sys.modules)
import fastrnn
print([m for m in {late} if m in sys.modules and m not in before])
"""
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
