"""The engines, each in its best configuration on one thread: ``build(case)`` gives a callable.

The callable does one unit of the case's work and returns the output as an ndarray; a step engine
keeps its state from call to call.
"""

from importlib.util import find_spec

import numpy as np

import fastrnn


class Fastrnn:
    """This library through its Python interface, into a given buffer."""

    name = "fastrnn"
    is_installed = True

    def version(self):
        return fastrnn.__version__

    def build(self, case):
        layer = getattr(fastrnn, case.kind).from_state_dict(case.tensors(), precision=case.precision)
        x = case.x()
        out = np.empty((case.T, case.B, layer.features_out), layer.dtype)
        if case.mode == "step":
            stream = layer.stream(case.B)
            x, out = x[0], out[0]
            return lambda: stream.step(x, out=out)
        return lambda: layer(x, out=out)[0]


class Torch:
    """torch eager in inference_mode, inputs as tensors already."""

    name = "torch"
    is_installed = find_spec("torch") is not None

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
        state = None

        def step():
            nonlocal state
            with torch.inference_mode():
                y, state = module(x, state)
            return y[0].numpy()

        def sequence():
            with torch.inference_mode():
                return module(x)[0].numpy()

        return step if case.mode == "step" else sequence


ENGINES = (Fastrnn(), Torch())
