"""The layers that users write down.

They have torch's names, arguments, shapes and results, and take and return NumPy arrays. A layer checks its
arguments (`checks`) and runs the operator that computes it. It never changes after it is made, so any number
of threads and streams may use it at once. No kernel lives here, and no file is read.
"""

from fastrnn.layers.activations import LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.layers.base import Layer
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.last import Last
from fastrnn.layers.linear import Linear
from fastrnn.layers.normalisation import LayerNorm
from fastrnn.layers.recurrent import GRU, LSTM, RNN, RecurrentLayer
from fastrnn.layers.tokens import Embedding, OneHot

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "Last",
    "Layer",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "OneHot",
    "ReLU",
    "RecurrentLayer",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
