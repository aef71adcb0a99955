"""fastrnn runs PyTorch's RNN, GRU and LSTM models on a CPU, without torch.

>>> model = fastrnn.load("model.safetensors")
>>> y, state = model(x)
"""

from fastrnn import _built as _built
from fastrnn._version import __version__
from fastrnn.engine.backends import show_config
from fastrnn.errors import FormatError, WeightError
from fastrnn.importers import StandIn, StateDict, load_state_dict
from fastrnn.layers import (
    GRU,
    LSTM,
    RNN,
    Dropout,
    Embedding,
    Last,
    LayerNorm,
    Linear,
    LogSoftmax,
    OneHot,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from fastrnn.loading.load import load
from fastrnn.loading.torch_module import from_torch
from fastrnn.program.sequential import Sequential
from fastrnn.streaming.pool import StreamPool
from fastrnn.streaming.stream import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "FormatError",
    "Last",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "OneHot",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "StandIn",
    "StateDict",
    "Stream",
    "StreamPool",
    "Tanh",
    "WeightError",
    "__version__",
    "from_torch",
    "load",
    "load_state_dict",
    "show_config",
]
