"""fastrnn runs PyTorch's RNN, GRU and LSTM models on a CPU, without torch.

>>> model = fastrnn.load("model.safetensors")
>>> y, state = model(x)
"""

import typing as _typing

from fastrnn import _built as _built
from fastrnn._version import __version__
from fastrnn.engine.backends import show_config
from fastrnn.errors import FormatError, WeightError
from fastrnn.importers import StandIn, StateDict, load_state_dict
from fastrnn.layers import (
    ELU,
    GELU,
    GRU,
    LSTM,
    RNN,
    BatchNorm1d,
    Conv1d,
    Dropout,
    Embedding,
    FinalState,
    GRUCell,
    Hardtanh,
    Last,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    LSTMCell,
    Max,
    Mean,
    OneHot,
    ReLU,
    RNNCell,
    Scale,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from fastrnn.loading.load import load
from fastrnn.loading.torch_module import from_torch
from fastrnn.program.sequential import Sequential
from fastrnn.streaming.pool import StreamPool
from fastrnn.streaming.stream import Stream

if _typing.TYPE_CHECKING:
    from fastrnn.comparison import Differences, compare
    from fastrnn.loading.export import export
    from fastrnn.program.heads import with_heads
    from fastrnn.program.program import Program

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "BatchNorm1d",
    "Conv1d",
    "Differences",
    "Dropout",
    "Embedding",
    "FinalState",
    "FormatError",
    "GRUCell",
    "Hardtanh",
    "LSTMCell",
    "Last",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Max",
    "Mean",
    "OneHot",
    "Program",
    "RNNCell",
    "ReLU",
    "Scale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "StandIn",
    "StateDict",
    "Stream",
    "StreamPool",
    "Tanh",
    "WeightError",
    "__version__",
    "compare",
    "export",
    "from_torch",
    "load",
    "load_state_dict",
    "show_config",
    "with_heads",
]

# What most processes never use is imported when it is first asked for.
_LATER = {
    "Differences": "fastrnn.comparison",
    "Program": "fastrnn.program.program",
    "compare": "fastrnn.comparison",
    "export": "fastrnn.loading.export",
    "with_heads": "fastrnn.program.heads",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value
