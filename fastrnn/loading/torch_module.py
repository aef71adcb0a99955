"""`from_torch`: a model from a live torch module. How a module is read is in `importers.torch_module`."""

from __future__ import annotations

from typing import Any

from fastrnn.checks import Precision
from fastrnn.importers.torch_module import read_module
from fastrnn.layers.registry import make_layers
from fastrnn.program.sequential import Sequential


def from_torch(
    module: Any, *, precision: Precision | None = None, threads: int | None = None, backend: str = "auto"
) -> Any:
    """Make the layer or model that computes what a live torch.nn module does.

    Parameters
    ----------
    module : torch.nn.Module
        RNN, GRU, LSTM or their cells, Linear, Embedding, LayerNorm, a dropout, an activation, or
        a Sequential of them.
    precision : str or mapping of str to str, optional
        As in `load`. That of the module's weights if not given: "float32" for those that are narrower.
    threads : int, optional
        As in `LSTM.from_state_dict`.
    backend : {"auto", "simd", "blas"}
        As in `LSTM.from_state_dict`.

    Returns
    -------
    A layer, or a Sequential for a torch Sequential.

    Raises
    ------
    TypeError
        The module, or one inside it, is of another class. A subclass counts as another class.
    ValueError
        A module has an option that no layer of fastrnn has, or an argument has a wrong value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/nn.html
    """
    layers = make_layers(read_module(module), precision, threads, backend)
    return Sequential(*layers) if type(module).__name__ == "Sequential" else layers[0]
