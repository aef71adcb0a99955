"""A torch module to export: how to build it, its inputs, and which sizes may change. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A module, and what `fastrnn.export` is told of it.

    Attributes
    ----------
    inputs : callable
        The example's arguments, at sizes that are given by name.
    sizes, other : dict
        The example's sizes, and others at which the module runs too.
    dynamic, state
        As in `fastrnn.export`.
    keywords : dict
        Keyword arguments.
    refused : str
        What the error says, if the module cannot be exported.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[..., tuple[Any, ...]]
    sizes: dict[str, int]
    other: dict[str, int]
    dynamic: Any = None
    state: tuple[tuple[int, int], ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    refused: str = ""

    def build(self) -> nn.Module:
        torch.manual_seed(1)
        return settle(self.make()).eval()

    def args(self, seed: int = 0, **sizes: int) -> tuple[Any, ...]:
        torch.manual_seed(seed)
        return self.inputs(**{**self.sizes, **sizes})


def settle(module: nn.Module) -> nn.Module:
    """Give normalisations statistics and weights as if they had been trained."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 1.5)
        normal = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.InstanceNorm1d)
        if isinstance(part, normal) and part.weight is not None:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module


def collector(cases: dict[str, Case]) -> Callable[..., Callable[[Any], Any]]:
    """Return a decorator of modules that adds a case to ``cases``."""

    def case(name: str, **options: Any) -> Callable[[Any], Any]:
        def add(cls: Any) -> Any:
            cases[name] = Case(name=name, make=options.pop("make", cls), **options)
            return cls

        return add

    return case


def tokens(*shape: int, below: int) -> Tensor:
    return torch.randint(0, below, shape)


def falling(count: int, longest: int) -> Tensor:
    """Lengths from the longest on down."""
    return torch.tensor([max(1, longest - i * 2) for i in range(count)])
