"""The engines, each in its best configuration on the threads that a work allows.

``engine.build(work)`` gives a Runner: one callable that does a unit of the work, into memory that is
bound beforehand where the engine can, and as little Python around it as the engine allows; and one
that gives the output of the last unit. In steps and blocks the state goes on from call to call.
"""

import os
from collections.abc import Callable
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

# What pip is to install for a package, where that is more than its name.
PINNED = {"torch": "torch==2.13.0"}


class LeftOut(Exception):
    """An engine does not do this work; the text says why."""


class Runner(NamedTuple):
    """A unit of work, ready to be called, and what the last call gave."""

    call: Callable[[], object]
    output: Callable[[], Array]


class Engine:
    """What is timed."""

    name = ""
    needs: tuple[str, ...] = ()

    def is_installed(self) -> bool:
        """Whether every package that the engine needs is there."""
        return not self.missing()

    def missing(self) -> list[str]:
        """The packages that the engine needs and that are not there."""
        return [package for package in self.needs if find_spec(package) is None]

    def version(self) -> str:
        """That of the installed engine."""
        raise NotImplementedError

    def build(self, work: Work) -> Runner:
        """Make everything ready for a work, or raise LeftOut."""
        raise NotImplementedError

    def active(self) -> AbstractContextManager[object]:
        """What has to be entered around calls."""
        return nullcontext()


class Fastrnn(Engine):
    """This library through its Python interface, into a given buffer where a layer runs alone."""

    name = "fastrnn"

    def version(self) -> str:
        return __version__

    def build(self, work: Work) -> Runner:
        model = make_model(work)
        x = work.x()
        if work.mode == "pool":
            return pool_runner(model, x[0], np.arange(work.B))
        if work.keeps_state:
            return stream_runner(model, work)
        layer = model.layers[0]
        if len(model.layers) > 1 or not isinstance(layer, RecurrentLayer):
            call = partial(model, x, lengths=work.lengths)
            return Runner(call, lambda: call()[0])
        out = np.empty((*x.shape[:-1], layer.features_out), layer.dtype)
        return Runner(partial(layer, x, lengths=work.lengths, out=out), lambda: out)


def stream_runner(model: Sequential, work: Work) -> Runner:
    """Steps or blocks of a live sequence, or of B rows that go in step."""
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
    return Runner(partial(call, x, y), lambda: y.swapaxes(0, axis) if swaps else y)


def pool_runner(model: Sequential, x: Array, order: NDArray[np.intp]) -> Runner:
    """Steps of a pool of as many streams as x (B, I) has rows, given in an order; the output in that of x."""
    pool = model.pool(len(x))
    ids = np.array([pool.open() for _ in x])[order]
    y = np.empty_like(model(x[None])[0][0])
    return Runner(partial(pool.step, ids, x[order], y), lambda: y[np.argsort(order)])


class OneThread(Fastrnn):
    """This library on one thread, whatever the work allows: what more threads are compared with."""

    name = "one thread"

    def build(self, work: Work) -> Runner:
        return super().build(replace(work, threads=1))


def make_model(work: Work) -> Sequential:
    """The layers of a work as a model of this library, on as many threads as it allows."""
    return Sequential(*(_layer(spec, work.threads) for spec in work.specs))


def _layer(spec: LayerSpec, threads: int) -> Any:
    cls = LAYERS[spec.kind]
    return cls.from_spec(spec, **({"threads": threads} if cls.has_backend else {}))


class Torch(Engine):
    """torch eager in inference_mode, its inputs tensors already."""

    name = "torch"
    needs = ("torch",)

    def version(self) -> str:
        import torch

        return str(torch.__version__)

    def active(self) -> AbstractContextManager[object]:
        import torch

        mode: AbstractContextManager[object] = torch.inference_mode()
        return mode

    def build(self, work: Work) -> Runner:
        import torch

        from fastrnn.benchmark.torch_model import make_runner

        if len(work.precisions) > 1:
            raise LeftOut("layers of different precisions")
        torch.set_num_threads(work.threads)
        run = make_runner(work)
        x = torch.tensor(work.x())
        if not work.keeps_state:
            return Runner(partial(run, x), lambda: np.asarray(run(x)[0]))
        y = state = None

        def step() -> None:
            nonlocal y, state
            y, state = run(x, state)

        return Runner(step, lambda: np.asarray(y))


class OnnxRuntime(Engine):
    """ONNX Runtime with bound inputs and outputs; the states kept go to and fro between two sets."""

    name = "onnxruntime"
    needs = ("onnx", "onnxruntime")

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def build(self, work: Work) -> Runner:
        session, states = self.session(work)
        bindings, y = self.bind(session, work.x(), states, work.keeps_state)
        return Runner(map(session.run_with_iobinding, cycle(bindings)).__next__, y.numpy)

    def session(self, work: Work) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """A session of the work's model, and the shapes of its states."""
        import onnxruntime

        serialised, states = _onnx(work)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = work.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
        return session, states

    def bind(
        self, session: Any, x: Array, states: dict[str, tuple[int, ...]], keeps_state: bool
    ) -> tuple[list[Any], Any]:
        """Two bindings to be run in turns, the states going to and fro; and where the output appears."""
        import onnxruntime

        make = onnxruntime.OrtValue.ortvalue_from_numpy
        x = make(x)
        y = make(np.zeros(session.get_outputs()[0].shape, np.float32))
        sets = [{name: make(np.zeros(shape, np.float32)) for name, shape in states.items()} for _ in "ab"]
        bindings = []
        for before, after in (sets, sets[::-1]):
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
    """OpenVINO for latency, with bound tensors; states as for ONNX Runtime."""

    name = "openvino"
    needs = ("onnx", "openvino")

    def version(self) -> str:
        import openvino

        return str(openvino.__version__).partition("-")[0]

    def build(self, work: Work) -> Runner:
        import openvino

        serialised, states = _onnx(work)
        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": work.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(core.read_model(serialised), "CPU", options)
        x = openvino.Tensor(work.x())
        y = openvino.Tensor(np.zeros(tuple(compiled.output("y").shape), np.float32))
        make = openvino.Tensor
        sets = [{name: make(np.zeros(shape, np.float32)) for name, shape in states.items()} for _ in "ab"]
        calls = []
        for before, after in (sets, sets[::-1]):
            request = compiled.create_infer_request()
            request.set_tensor("x", x)
            request.set_tensor("y", y)
            for name in states:
                if work.keeps_state:
                    request.set_tensor(f"{name}_in", before[name])
                request.set_tensor(f"{name}_out", after[name])
            calls.append(partial(request.infer, share_outputs=True))
        return Runner(map(_run, cycle(calls)).__next__, lambda: np.array(y.data))


def _run(call: Callable[[], object]) -> object:
    return call()


def _onnx(work: Work) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """The model for the engines that read ONNX, and its states."""
    from fastrnn.benchmark.onnx_model import NoOnnx, build_model, state_shapes

    try:
        return build_model(work), state_shapes(work)
    except NoOnnx as error:
        raise LeftOut(str(error)) from error


OURS = Fastrnn()
ONE_THREAD = OneThread()
PEERS: tuple[Engine, ...] = (Torch(), OnnxRuntime(), OpenVino())


def limit_threads(threads: int) -> None:
    """Tell the libraries that are not loaded yet how many threads they may start."""
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
