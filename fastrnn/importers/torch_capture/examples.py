"""Example inputs at other sizes, and which axes of inputs may have other sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

Axes = Sequence[dict[int, str]]  # of each input: the names of its dynamic axes


def resized(
    tensor: torch.Tensor, axes: dict[int, str], old: dict[str, int], new: dict[str, int], seed: int
) -> torch.Tensor:
    """Return an example of another size, with numbers drawn from the example's own.

    Numbers along one axis that reach a size, as lengths do, are scaled with it.
    """
    shape = [new.get(axes.get(axis, ""), size) for axis, size in enumerate(tensor.shape)]
    if seed == 0 and tuple(shape) == tuple(tensor.shape):
        return tensor.clone()
    generator = torch.Generator().manual_seed(seed)
    pool = tensor.reshape(-1)
    if pool.numel() == 0:
        return tensor.new_zeros(shape)
    picked = torch.randint(0, pool.numel(), (_count(shape),), generator=generator)
    drawn = pool[picked].reshape(shape)
    if tensor.dim() == 1 and not tensor.is_floating_point() and tensor.dtype != torch.bool:
        reached = next((name for name, size in old.items() if size == int(tensor.max())), None)
        if reached is not None and drawn.numel():
            drawn = torch.div(drawn * new[reached] + old[reached] - 1, old[reached], rounding_mode="floor")
            drawn = drawn.clamp(1, new[reached])
            if tensor[0] == tensor.max():
                drawn = drawn.sort(descending=True).values
            drawn[int(drawn.argmax())] = new[reached]
    return drawn


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def size_candidates(base: dict[str, int]) -> Iterator[dict[str, int]]:
    """Yield sizes near those of the example: one name at a time, then all together."""
    names = list(base)
    for name in names:
        for size in _near(base[name]):
            yield {**base, name: size}
    for steps in itertools.islice(itertools.product((2, 3, 5, 1, 4), repeat=min(len(names), 3)), 24):
        yield {
            name: base[name] + step * (i + 1)
            for (i, name), step in zip(enumerate(names), (*steps, *[2] * len(names)), strict=False)
        }
    for factor in (2, 3, 4):
        yield {name: base[name] * factor for name in names}
    for first in names:
        for factor in (2, 3):
            yield {**base, first: base[first] * factor}


def _near(size: int) -> list[int]:
    return [
        size + 1,
        size + 3,
        size * 2,
        size + 2,
        size * 3,
        size + 4,
        size + 8,
        size * 4,
        size + 5,
        size + 7,
    ]


def find_axes(tensors: Sequence[torch.Tensor], runs: Callable[[Sequence[torch.Tensor]], bool]) -> Axes:
    """Return the axes of inputs that may have other sizes, by running at other sizes.

    Axes that change only together have one name.
    """
    places = [(i, axis) for i, tensor in enumerate(tensors) for axis in range(tensor.dim())]
    named: list[dict[int, str]] = [{} for _ in tensors]
    count = 0

    def works(group: Sequence[tuple[int, int]]) -> bool:
        tried = 0
        for factor, more in ((1, 1), (2, 0), (3, 1)):
            axes: list[dict[int, str]] = [{} for _ in tensors]
            size = tensors[group[0][0]].shape[group[0][1]]
            for i, axis in group:
                axes[i][axis] = "size"
            changed = [
                resized(t, a, {"size": size}, {"size": size * factor + more}, 1) if a else t
                for t, a in zip(tensors, axes, strict=True)
            ]
            tried += runs(changed)
            if tried == 2:
                return True
        return False

    def name(group: Sequence[tuple[int, int]]) -> None:
        nonlocal count
        count += 1
        for i, axis in group:
            named[i][axis] = f"size{count}"

    taken: set[tuple[int, int]] = set()
    for place in places:
        if place not in taken and works([place]):
            name([place])
            taken.add(place)
    for place in places:
        if place in taken:
            continue
        size = tensors[place[0]].shape[place[1]]
        others = [p for p in places if p not in taken and p != place and tensors[p[0]].shape[p[1]] == size]
        for group in ([place, other] for other in others):
            if works(group):
                break
        else:
            group = [place, *others]
            if len(others) < 2 or not works(group):
                group = []
        if group:
            name(group)
            taken.update(group)
    return named
