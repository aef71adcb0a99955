"""Dropout, which does nothing in inference."""

from __future__ import annotations

from typing import TypeVar

from fastrnn.checks import (
    check_number,
)
from fastrnn.layers.base import Layer
from fastrnn.operators.signature import Signature, Trait
from fastrnn.spec import LayerSpec

# What Dropout takes and returns.
Anything = TypeVar("Anything")


class Dropout(Layer):
    """Return the input unchanged, as torch's ``nn.Dropout`` does in inference.

    Parameters
    ----------
    p : float
        The dropout probability of training. It is kept, and has no effect.

    Raises
    ------
    TypeError
        ``p`` is not a number.
    ValueError
        ``p`` is not finite.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html
    """

    option_names = ("p",)

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_number("Dropout", "p", p)

    @property
    def signature(self) -> Signature:
        return Signature(Trait.IDENTITY)

    def spec(self) -> LayerSpec:
        return LayerSpec("Dropout", {"p": self.p})

    def __call__(self, x: Anything) -> Anything:
        """Return x itself. It may have any shape and type, and is not checked."""
        return x
