"""`from_torch`: a model of a live torch module."""

from __future__ import annotations

from typing import Any

from fastrnn.importers.torch_module import read_module
from fastrnn.program.sequential import build


def from_torch(
    module: Any, *, precision: str | None = None, threads: int | None = None, backend: str = "auto"
) -> Any:
    """Make the layer or model of a live torch.nn module.

    Parameters
    ----------
    module : torch.nn.Module
        RNN, GRU, LSTM or their cells, Linear, Embedding, LayerNorm, a dropout, an activation, or
        a Sequential of them.
    precision : {"float32", "float64"}, optional
        That of the module's weights if not given.
    threads : int, optional
    backend : {"auto", "simd", "blas"}
        Both as in `LSTM.from_state_dict`.

    Returns
    -------
    A layer; of a torch Sequential, a Sequential.

    Raises
    ------
    TypeError
        The module, or one inside it, is of another class; a subclass counts as such.
    ValueError
        A module has an option that no layer here has, or an option of the call a wrong value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/nn.html
    """
    specs = read_module(module)
    model = build(specs, precision, threads, backend)
    return model if type(module).__name__ == "Sequential" else model.layers[0]
