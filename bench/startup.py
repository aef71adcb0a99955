"""What an engine costs before its first result: the time of a new process, and the bytes that it installs."""

import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

import fastrnn
from bench.cases import Case
from fastrnn.benchmark.engines import OURS, PEERS
from fastrnn.benchmark.work import Work
from fastrnn.errors import message

RUNS = 7
SIZE = 128
CLASSES = 10
STEPS = 100

# A user's program for each engine, from the kind of file that its users keep. `folder` is where the files
# are. NumPy alone is shown too, since every engine here needs it.
PROGRAMS = {
    "numpy alone": "import numpy as np; np.load(folder + '/x.npy').sum()",
    "fastrnn": """
import numpy as np, fastrnn
y, _ = fastrnn.load(folder + "/model.safetensors", threads=1)(np.load(folder + "/x.npy"))
""",
    "torch": f"""
import torch, numpy as np
lstm, linear = torch.nn.LSTM({SIZE}, {SIZE}), torch.nn.Linear({SIZE}, {CLASSES})
state_dict = torch.load(folder + "/model.pt", weights_only=True)
torch.nn.ModuleList([lstm, linear]).load_state_dict(state_dict)
torch.set_num_threads(1)
with torch.inference_mode():
    y = linear(lstm(torch.from_numpy(np.load(folder + "/x.npy")))[0])
""",
    "onnxruntime": """
import onnxruntime, numpy as np
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(folder + "/model.onnx", options)
y = session.run(["y"], {"x": np.load(folder + "/x.npy")})
""",
    "openvino": """
import openvino, numpy as np
core = openvino.Core()
options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
model = core.compile_model(core.read_model(folder + "/model.onnx"), "CPU", options)
y = model({"x": np.load(folder + "/x.npy")})
""",
}
# The distribution of each engine, by pip's name.
DISTRIBUTIONS = ("fastrnn", "torch", "onnxruntime", "openvino")


def cold_starts(runs=RUNS, report=lambda done, total: None):
    """Milliseconds from the start of a new process to its first result: import, load, run.

    The model is an LSTM 128->128 and a Linear over 100 steps, on one thread. The programs take turns. The
    first turn fills the disk's cache and does not count.

    Returns
    -------
    dict of str to dict
        median and best of each program whose engine is installed.
    """
    names = ["numpy alone", *(engine.name for engine in (OURS, *PEERS) if engine.is_installed())]
    seconds = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        _write_models(folder)
        for turn in range(runs + 1):
            for name in names:
                taken = _seconds_to_result(name, folder)
                if turn:
                    seconds[name].append(taken)
            report(turn + 1, runs + 1)
    return {
        name: {"median": float(np.median(values) * 1e3), "best": min(values) * 1e3}
        for name, values in seconds.items()
    }


def _seconds_to_result(name, folder):
    """The seconds from the start of a new process until it reports its result."""
    program = f"import sys; folder = sys.argv[1]\n{PROGRAMS[name]}\nprint('done', flush=True)"
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE) as process:
        said = process.stdout.readline()
        seconds = time.perf_counter() - began
    if said.strip() != b"done":
        raise RuntimeError(message(name, "a first result", f"exit status {process.returncode}"))
    return seconds


def _write_models(folder):
    """Write the same model as every engine's users keep it, and an input."""
    random = np.random.default_rng(0)
    linear = {"weight": random.standard_normal((CLASSES, SIZE)), "bias": random.standard_normal(CLASSES)}
    lstm = Case("LSTM", SIZE, SIZE).work().specs[0].tensors
    model = fastrnn.Sequential(fastrnn.LSTM.from_state_dict(lstm), fastrnn.Linear.from_state_dict(linear))
    model.save(os.path.join(folder, "model.safetensors"))
    work = Work(tuple(layer.spec() for layer in model.layers), T=STEPS)
    np.save(os.path.join(folder, "x.npy"), work.x())
    installed = {engine.name for engine in PEERS if engine.is_installed()}
    if "torch" in installed:
        import torch

        tensors = {
            f"{index}.{name}": torch.tensor(array)
            for index, spec in enumerate(work.specs)
            for name, array in spec.tensors.items()
        }
        torch.save(tensors, os.path.join(folder, "model.pt"))
    if installed & {"onnxruntime", "openvino"}:
        from fastrnn.benchmark.onnx_model import build_model

        Path(folder, "model.onnx").write_bytes(build_model(work))


def installed_sizes():
    """Bytes of every engine that is installed, and of everything that it requires (without extras).

    Returns
    -------
    dict of str to dict
        own and all (bytes), and with: the names of the requirements. Empty if the package `packaging`, which
        reads requirements, is not installed.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return {}

    def requirements(name):
        for text in _requires(name):
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield requirement.name

    sizes = {}
    for engine in DISTRIBUTIONS:
        if engine != "fastrnn" and not _is_there(engine):
            continue
        closure, waiting = {}, [engine]
        while waiting:
            name = waiting.pop().lower().replace("_", "-")
            if name not in closure and (name == "fastrnn" or _is_there(name)):
                closure[name] = _bytes(name)
                waiting += requirements(name)
        sizes[engine] = {
            "own": closure[engine],
            "all": sum(closure.values()),
            "with": sorted(set(closure) - {engine}),
        }
    return sizes


def _is_there(name):
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _requires(name):
    """The requirements of a distribution. In a source tree, those of fastrnn are in its pyproject.toml."""
    if _is_there(name):
        return metadata.requires(name) or []
    import tomllib

    with open(Path(__file__).parents[1] / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["dependencies"]


def _bytes(name):
    """The bytes of a distribution's files.

    For fastrnn they are those of its package's folder, installed or not, without the C that Cython leaves in
    a source tree.
    """
    if name == "fastrnn":
        folder = Path(fastrnn.__file__).parent
        files = [
            file
            for file in folder.rglob("*")
            if not (file.suffix == ".c" and file.with_suffix(".pyx").exists())
        ]
    else:
        distribution = metadata.distribution(name)
        files = [Path(distribution.locate_file(file)) for file in distribution.files or []]
    return sum(file.stat().st_size for file in files if file.is_file())
