"""The engines, each in its best configuration on one thread.

``build(case)`` gives two callables: one that does a unit of the case's work, into memory that is
bound beforehand where the engine can, and one that gives the output of the last unit as an ndarray.
A step engine keeps its state from call to call.
"""

from importlib.util import find_spec

import numpy as np

import fastrnn


class Fastrnn:
    """This library through its Python interface, into a given buffer."""

    name = "fastrnn"
    needs = ("fastrnn",)

    def version(self):
        return fastrnn.__version__

    def build(self, case):
        layer = getattr(fastrnn, case.kind).from_state_dict(case.tensors(), precision=case.precision)
        x = case.x()
        out = np.empty((case.T, case.B, layer.features_out), layer.dtype)
        if case.mode == "step":
            stream = layer.stream(case.B)
            x, y = x[0], out[0]
            return lambda: stream.step(x, out=y), lambda: out
        return lambda: layer(x, out=out), lambda: out


class Torch:
    """torch eager in inference_mode, inputs as tensors already."""

    name = "torch"
    needs = ("torch",)

    def version(self):
        import torch

        return torch.__version__

    def build(self, case):
        import torch

        torch.set_num_threads(1)
        module = getattr(torch.nn, case.kind)(
            case.input_size,
            case.hidden_size,
            num_layers=case.num_layers,
            bidirectional=case.bidirectional,
        )
        module = module.to(getattr(torch, case.precision)).eval()
        module.load_state_dict({name: torch.from_numpy(a) for name, a in case.tensors().items()})
        x = torch.from_numpy(case.x())
        last = {"y": None, "state": None}
        keeps_state = case.mode == "step"

        def call():
            with torch.inference_mode():
                last["y"], state = module(x, last["state"])
            if keeps_state:
                last["state"] = state

        return call, lambda: last["y"].numpy()


class OnnxRuntime:
    """ONNX Runtime with bound inputs and outputs; the states of a step go to and fro between two sets."""

    name = "onnxruntime"
    needs = ("onnx", "onnxruntime")

    def version(self):
        import onnxruntime

        return onnxruntime.__version__

    def build(self, case):
        import onnxruntime

        from bench.onnx_model import build_model, state_names

        if case.precision != "float32":
            return None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(build_model(case), options, providers=["CPUExecutionProvider"])

        def empty(*shape):
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cpu")

        directions = 2 if case.bidirectional else 1
        x = onnxruntime.OrtValue.ortvalue_from_numpy(case.x())
        y = empty(case.T, case.B, directions * case.hidden_size)
        shape = (directions, case.B, case.hidden_size)
        states = state_names(case)
        sets = [
            {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for name in states}
            for _ in range(2)
        ]
        bindings = []
        for before, after in (sets, sets[::-1]):
            binding = session.io_binding()
            binding.bind_ortvalue_input("x", x)
            binding.bind_ortvalue_output("y", y)
            for name in states:
                if case.mode == "step":
                    binding.bind_ortvalue_input(f"{name}_in", before[name])
                binding.bind_ortvalue_output(f"{name}_out", after[name])
            bindings.append(binding)
        return _turns(session.run_with_iobinding, bindings), lambda: y.numpy()


class OpenVino:
    """OpenVINO for latency, with bound tensors; states as for ONNX Runtime."""

    name = "openvino"
    needs = ("onnx", "openvino")

    def version(self):
        import openvino

        return openvino.__version__.partition("-")[0]

    def build(self, case):
        import openvino

        from bench.onnx_model import build_model, state_names

        if case.precision != "float32":
            return None
        core = openvino.Core()
        options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        options["INFERENCE_PRECISION_HINT"] = "f32"
        compiled = core.compile_model(core.read_model(build_model(case)), "CPU", options)
        directions = 2 if case.bidirectional else 1
        x = openvino.Tensor(case.x())
        y = openvino.Tensor(np.empty((case.T, case.B, directions * case.hidden_size), np.float32))
        shape = (directions, case.B, case.hidden_size)
        states = state_names(case)
        sets = [{name: openvino.Tensor(np.zeros(shape, np.float32)) for name in states} for _ in range(2)]
        requests = []
        for before, after in (sets, sets[::-1]):
            request = compiled.create_infer_request()
            request.set_tensor("x", x)
            request.set_tensor("y", y)
            for name in states:
                if case.mode == "step":
                    request.set_tensor(f"{name}_in", before[name])
                request.set_tensor(f"{name}_out", after[name])
            requests.append(request)
        return _turns(lambda request: request.infer(), requests), lambda: y.data


def _turns(run, two):
    """A callable that runs one and the other of two in turn."""
    turn = [0]

    def call():
        run(two[turn[0]])
        turn[0] ^= 1

    return call


ENGINES = (Fastrnn(), Torch(), OnnxRuntime(), OpenVino())


def is_installed(engine):
    """Whether all packages that an engine needs are there."""
    return all(find_spec(name) is not None for name in engine.needs)
