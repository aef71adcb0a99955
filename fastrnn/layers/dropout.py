"""Dropout, which does nothing at inference."""

from __future__ import annotations

from typing import TypeVar

from fastrnn.checks import (
    check_number,
)
from fastrnn.layers.base import Layer
from fastrnn.operators.signature import Signature, Trait
from fastrnn.spec import LayerSpec

# What Dropout passes on.
Anything = TypeVar("Anything")


class Dropout(Layer):
    """Nothing: at inference torch's ``nn.Dropout`` passes its input on.

    Parameters
    ----------
    p : float
        Kept, and of no effect. A TypeError or ValueError if it is no finite number.

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
        """x as it is, of any shape and type; nothing is checked."""
        return x
