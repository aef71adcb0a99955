"""The engines, each in its best configuration for the number of threads that a work allows.

``engine.build(work)`` returns a Job: a function that does one unit of the work, and a function that returns
the output of the last unit. Inputs and outputs are bound beforehand if the engine can do that, with as
little Python around a call as the engine allows. In steps and blocks the state goes on from call to call.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn._version import __version__
from fastrnn.arrays import Array
from fastrnn.benchmark.work import Work
from fastrnn.layers import RecurrentLayer
from fastrnn.layers.registry import LAYERS
from fastrnn.program.sequential import Sequential
from fastrnn.spec import LayerSpec

# What pip has to install for a package, if that is more than its name.
PINNED = {"torch": "torch==2.13.0"}


class LeftOut(Exception):
    """An engine cannot do this work. The text says why."""


class Job(NamedTuple):
    """A unit of work that is ready to be called, and the output of the last call."""

    call: Callable[[], object]
    output: Callable[[], Array]


class Engine:
    """A library that is timed. The name is the library's, the precision that of its weights."""

    name = ""
    precision = "float32"
    needs: tuple[str, ...] = ()

    def is_installed(self) -> bool:
        """Whether every package that the engine needs is installed."""
        return not self.missing()

    def missing(self) -> list[str]:
        """The packages that the engine needs and that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]

    def version(self) -> str:
        """The version of the installed engine."""
        raise NotImplementedError

    def build(self, work: Work) -> Job:
        """Make everything ready for a work. Raises LeftOut if the engine cannot do it."""
        raise NotImplementedError

    def active(self) -> AbstractContextManager[object]:
        """A context in which calls have to be made."""
        return nullcontext()


class Fastrnn(Engine):
    """This library through its Python interface. A single layer writes into a given buffer."""

    name = "fastrnn"

    def version(self) -> str:
        return __version__

    def build(self, work: Work) -> Job:
        model = make_model(work)
        x = work.x()
        if work.mode == "pool":
            return pool_job(model, x[0], np.arange(work.B))
        if work.keeps_state:
            return stream_job(model, work)
        layer = model.layers[0]
        if len(model.layers) > 1 or not isinstance(layer, RecurrentLayer):
            call = partial(model, x, lengths=work.lengths)
            return Job(call, lambda: call()[0])
        out = np.empty((*x.shape[:-1], layer.features_out), layer.dtype)
        return Job(partial(layer, x, lengths=work.lengths, out=out), lambda: out)


def stream_job(model: Sequential, work: Work) -> Job:
    """Steps or blocks of a live sequence, or of B of them in one batch."""
    stream = model.stream(None if work.B == 1 else work.B)
    axis = 1 if work.batch_first else 0
    x = np.array(work.x().swapaxes(0, axis), order="C")  # (T, B, ...)
    if work.B == 1:
        x = x.reshape(work.T, *x.shape[2:])
    if work.mode == "step":
        x = x.reshape(x.shape[1:])
    call = stream.step if work.mode == "step" else stream.run
    y = np.empty_like(call(x))
    stream.reset()
    swaps = work.mode == "block" and work.B > 1
    return Job(partial(call, x, y), lambda: y.swapaxes(0, axis) if swaps else y)


def pool_job(model: Sequential, x: Array, order: NDArray[np.intp]) -> Job:
    """Steps of a pool: a stream for each row of x (B, I), given in this order. The output is in x's order."""
    pool = model.pool(len(x))
    ids = np.array([pool.open() for _ in x])[order]
    y = np.empty_like(model(x[None])[0][0])
    return Job(partial(pool.step, ids, x[order], y), lambda: y[np.argsort(order)])


class OneThread(Fastrnn):
    """This library on one thread, whatever the work allows. More threads are compared with it."""

    name = "one thread"

    def build(self, work: Work) -> Job:
        return super().build(replace(work, threads=1))


def make_model(work: Work) -> Sequential:
    """The layers of a work as a model of this library, on as many threads as the work allows."""
    return Sequential(*(_layer(spec, work.threads) for spec in work.specs))


def _layer(spec: LayerSpec, threads: int) -> Any:
    cls = LAYERS[spec.kind]
    return cls.from_spec(spec, **({"threads": threads} if cls.has_backend else {}))


class Torch(Engine):
    """torch in eager mode, under inference_mode. Its inputs are tensors beforehand."""

    name = "torch"
    needs = ("torch",)

    def prepare(self, module: Any) -> Any:
        """A module with its weights, as it is run."""
        return module

    def tensor(self, x: Array) -> Any:
        """The input."""
        import torch

        return torch.tensor(x)

    def version(self) -> str:
        import torch

        return str(torch.__version__)

    def active(self) -> AbstractContextManager[object]:
        import torch

        mode: AbstractContextManager[object] = torch.inference_mode()
        return mode

    def build(self, work: Work) -> Job:
        import torch

        from fastrnn.benchmark.torch_model import make_function

        work = work.widened()
        if len(work.precisions) > 1:
            raise LeftOut("layers of different precisions")
        torch.set_num_threads(work.threads)
        run = make_function(work, self.prepare)
        x = self.tensor(work.x())
        if not work.keeps_state:
            return Job(partial(run, x), lambda: _array(run(x)[0]))
        y = state = None

        def step() -> None:
            nonlocal y, state
            y, state = run(x, state)

        return Job(step, lambda: _array(y))


def _array(y: Any) -> Array:
    """A tensor as an array. NumPy has no bfloat16."""
    return np.asarray(y.float() if str(y.dtype) == "torch.bfloat16" else y)


class OnnxRuntime(Engine):
    """ONNX Runtime with bound inputs and outputs. States alternate between two sets of arrays."""

    name = "onnxruntime"
    needs = ("onnx", "onnxruntime")

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def build(self, work: Work) -> Job:
        session, states = self.session(work)
        bindings, y = self.bind(session, work.x(), states, work.keeps_state)
        return Job(map(session.run_with_iobinding, cycle(bindings)).__next__, y.numpy)

    def session(self, work: Work) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """A session for the work's model, and the shapes of its states."""
        serialised, states = _onnx(work)
        return self.open(serialised, work.threads), states

    def open(self, serialised: bytes, threads: int) -> Any:
        """A session for a model on this many threads."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])

    def bind(
        self, session: Any, x: Array, states: dict[str, tuple[int, ...]], keeps_state: bool
    ) -> tuple[list[Any], Any]:
        """Two bindings to run in turns, which swap two sets of states, and the array of the output."""
        import onnxruntime

        make = onnxruntime.OrtValue.ortvalue_from_numpy
        x = make(x)
        y = make(np.zeros(session.get_outputs()[0].shape, np.float32))
        bindings = []
        for before, after in _alternating(make, states):
            binding = session.io_binding()
            binding.bind_ortvalue_input("x", x)
            binding.bind_ortvalue_output("y", y)
            for name in states:
                if keeps_state:
                    binding.bind_ortvalue_input(f"{name}_in", before[name])
                binding.bind_ortvalue_output(f"{name}_out", after[name])
            bindings.append(binding)
        return bindings, y


class OpenVino(Engine):
    """OpenVINO, tuned for latency, with bound tensors. States alternate as with ONNX Runtime."""

    name = "openvino"
    needs = ("onnx", "openvino")
    computes_in = "f32"

    def version(self) -> str:
        import openvino

        return str(openvino.__version__).partition("-")[0]

    def build(self, work: Work) -> Job:
        import openvino

        serialised, states = _onnx(work)
        compiled = self.compile(serialised, work.threads)
        x = openvino.Tensor(work.x())
        y = openvino.Tensor(np.zeros(tuple(compiled.output("y").shape), np.float32))
        calls = []
        for before, after in _alternating(openvino.Tensor, states):
            request = compiled.create_infer_request()
            request.set_tensor("x", x)
            request.set_tensor("y", y)
            for name in states:
                if work.keeps_state:
                    request.set_tensor(f"{name}_in", before[name])
                request.set_tensor(f"{name}_out", after[name])
            calls.append(partial(request.infer, share_outputs=True))
        return Job(map(_run, cycle(calls)).__next__, lambda: np.array(y.data))

    def compile(
        self, serialised: bytes, threads: int, shapes: Sequence[tuple[int, ...]] | None = None
    ) -> Any:
        """A model compiled for this many threads. With ``shapes``, its inputs get these fixed ones."""
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.computes_in,
        }
        model = core.read_model(serialised)
        if shapes is not None:
            model.reshape(dict(zip(model.inputs, map(openvino.PartialShape, shapes), strict=True)))
        return core.compile_model(model, "CPU", options)


def _alternating(make: Callable[[Array], Any], states: dict[str, tuple[int, ...]]) -> Iterable[list[Any]]:
    """The states before and after a call, by name, for two calls in turns that read what the other wrote."""
    sets = [{name: make(np.zeros(shape, np.float32)) for name, shape in states.items()} for _ in range(2)]
    return sets, sets[::-1]


def _run(call: Callable[[], object]) -> object:
    return call()


def _onnx(work: Work) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """The model as ONNX, and the shapes of its states."""
    from fastrnn.benchmark.onnx_model import NoOnnx, build_model, state_shapes

    try:
        return build_model(work.widened()), state_shapes(work)
    except NoOnnx as error:
        raise LeftOut(str(error)) from error


OURS = Fastrnn()
ONE_THREAD = OneThread()
PEERS: tuple[Engine, ...] = (Torch(), OnnxRuntime(), OpenVino())


def limit_threads(threads: int) -> None:
    """Limit the threads of libraries that are not loaded yet."""
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
