"""The layers that users write down.

They have torch's names, arguments, shapes and results, and take and return NumPy arrays. A layer checks its
arguments (`checks`) and runs the operator that computes it. It never changes after it is made, so any number
of threads and streams may use it at once. No kernel lives here, and no file is read.
"""

from fastrnn.layers.activations import (
    ELU,
    GELU,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from fastrnn.layers.affine import BatchNorm1d, Scale
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.layers.convolution import Conv1d
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.linear import Linear
from fastrnn.layers.normalisation import LayerNorm
from fastrnn.layers.over_time import FinalState, Last, Max, Mean
from fastrnn.layers.recurrent import GRU, LSTM, RNN, RecurrentLayer
from fastrnn.layers.tokens import Embedding, OneHot

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "BatchNorm1d",
    "Conv1d",
    "Dropout",
    "Embedding",
    "FinalState",
    "GRUCell",
    "Hardtanh",
    "LSTMCell",
    "Last",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Max",
    "Mean",
    "OneHot",
    "RNNCell",
    "ReLU",
    "RecurrentLayer",
    "Scale",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]
