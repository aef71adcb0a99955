"""The layers: torch's names, arguments, shapes and numbers; NumPy arrays in and out.

A layer checks its arguments (errors.py), allocates its result, and calls the engine. It is
immutable once made, so any number of threads and streams may use it.
"""

from fastrnn.layers.base import Layer
from fastrnn.layers.plain import Dropout, Last, LogSoftmax, OneHot, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.layers.recurrent import GRU, LSTM, RNN, RecurrentLayer
from fastrnn.layers.weighted import Embedding, LayerNorm, Linear

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
