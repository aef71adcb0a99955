"""Example inputs at other sizes, and which axes of inputs may have other sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

CHANGES = ((1, 1), (2, 0), (3, 0), (4, 0))  # a factor of a size, and what is added
MOST_RELATED = 4  # the axes among which related ones are looked for
# By how much sizes grow when another one grows by one: frames and samples, chunks and steps.
RATIOS = (
    *range(1, 17),
    20,
    24,
    32,
    40,
    48,
    64,
    80,
    100,
    120,
    128,
    160,
    200,
    240,
    256,
    300,
    320,
    400,
    480,
    512,
)

Axes = Sequence[dict[int, str]]  # of each input: the names of its dynamic axes


def resized(
    tensor: torch.Tensor,
    axes: dict[int, str],
    old: dict[str, int],
    new: dict[str, int],
    seed: int,
    are_lengths: bool = True,
) -> torch.Tensor:
    """Return an example of another size, with numbers drawn from the example's own.

    Numbers along one axis that reach a size, as lengths do, are scaled with it. Now and then none reaches it.
    are_lengths: whether to do that.
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
    is_count = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
    if are_lengths and tensor.dim() == 1 and is_count and drawn.numel():
        longest = int(tensor.max())
        reached = next((name for name, size in old.items() if size == longest), None)
        if reached is not None:
            drawn = torch.div(drawn * new[reached] + old[reached] - 1, old[reached], rounding_mode="floor")
            longest = new[reached]
            drawn = drawn.clamp(1, longest)
        if bool((tensor.diff() <= 0).all()):
            drawn = drawn.sort(descending=True).values
        drawn[int(drawn.argmax())] = longest
        if reached is not None and seed % 4 == 3:
            drawn = drawn.clamp(max=max(longest - 1, 1))
    return drawn


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def size_candidates(base: dict[str, int]) -> Iterator[dict[str, int]]:
    """Yield sizes near those of the example.

    First all change at once, each in its own way, which tells most of how numbers depend on them. Then one
    name at a time, and multiples, for modules whose sizes have to fit each other.
    """
    names = list(base)
    for turn in range(12):
        yield {name: base[name] + _growth(base[name], turn, index) for index, name in enumerate(names)}
    for name in names:
        for more in range(5):
            yield {**base, name: base[name] + _growth(base[name], more, 0)}
    for factors in itertools.product((1, 2, 3, 4), repeat=min(len(names), 3)):
        yield {**base, **{name: base[name] * factor for name, factor in zip(names, factors, strict=False)}}


def _growth(size: int, turn: int, index: int) -> int:
    """By how much a size grows: odd and even by turns, and with other ratios of sizes."""
    steps = (1, 3, 2, 5, 4, 7, 6)
    eighths = (0, 3, 1, 4, 2)
    step = steps[(turn + 2 * index) % len(steps)]
    growth = step + size * eighths[(turn * (index + 1) + index) % len(eighths)] // 8
    return growth + (growth + turn + 1) % 2


def find_axes(tensors: Sequence[torch.Tensor], runs: Callable[[Sequence[torch.Tensor]], bool]) -> Axes:
    """Return the axes of inputs that may have other sizes, by running at other sizes.

    Axes that change only together have one name.
    """
    places = [(i, axis) for i, tensor in enumerate(tensors) for axis in range(tensor.dim())]
    named: list[dict[int, str]] = [{} for _ in tensors]
    count = 0

    def works(group: Sequence[tuple[int, int]]) -> bool:
        tried = 0
        for factor, more in CHANGES:
            axes: list[dict[int, str]] = [{} for _ in tensors]
            size = tensors[group[0][0]].shape[group[0][1]]
            for i, axis in group:
                axes[i][axis] = "size"
            tried += any(
                map(runs, all_resized(tensors, axes, {"size": size}, {"size": size * factor + more}, 1))
            )
            if tried == 2:
                return True
        return False

    def name(group: Sequence[tuple[int, int]]) -> None:
        nonlocal count
        count += 1
        for i, axis in group:
            named[i][axis] = f"size{count}"

    taken: set[tuple[int, int]] = set()
    # Lengths and kinds of rows belong to the rows, also where a module drops the rows that have none.
    for i, tensor in enumerate(tensors):
        if tensor.dim() != 1 or tensor.is_floating_point() or (i, 0) in taken:
            continue
        rows = [(k, axis) for k, axis in places if k != i and tensors[k].shape[axis] == tensor.shape[0]]
        leading = [(k, axis) for k, axis in rows if axis == 0]
        for joined in (
            [[row] for row in rows] if len(rows) == 1 else [leading, rows, *([row] for row in rows)]
        ):
            if joined and not taken.intersection(joined) and works([(i, 0), *joined]):
                name([(i, 0), *joined])
                taken.update(((i, 0), *joined))
                break
    alone = []
    for place in places:
        if place not in taken and works([place]):
            name([place])
            taken.add(place)
            alone.append(place)
    # A mask cannot grow alone, though what it masks can.
    for place in places:
        size = tensors[place[0]].shape[place[1]]
        for other in alone:
            if place in taken or other[0] == place[0] or tensors[other[0]].shape[other[1]] != size:
                continue
            joined = [other, *(p for p in taken if named[p[0]].get(p[1]) == named[other[0]][other[1]])]
            if works([place, *dict.fromkeys(joined)]):
                named[place[0]][place[1]] = named[other[0]][other[1]]
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
    # Sizes of which one grows by several when the other grows by one.
    rest = [place for place in places if place not in taken]
    if 2 <= len(rest) <= MOST_RELATED:
        for first, second in itertools.permutations(rest, 2):
            if first in taken or second in taken or first[0] == second[0]:
                continue
            axes: list[dict[int, str]] = [{} for _ in tensors]
            axes[first[0]][first[1]], axes[second[0]][second[1]] = "leader", "follower"
            base = {
                key: tensors[i].shape[axis] for key, (i, axis) in (("leader", first), ("follower", second))
            }
            if find_followers(base, tuple(base), runs_at(tensors, axes, base, runs)):
                name([first])
                name([second])
                taken.update((first, second))
    return named


def all_resized(
    tensors: Sequence[torch.Tensor], axes: Axes, old: dict[str, int], new: dict[str, int], seed: int
) -> Iterator[list[torch.Tensor]]:
    """Yield examples of other sizes for all inputs: as if there were lengths among them, then as if not."""
    first = [resized(t, a, old, new, seed) for t, a in zip(tensors, axes, strict=True)]
    yield first
    second = [resized(t, a, old, new, seed, False) for t, a in zip(tensors, axes, strict=True)]
    if any(not torch.equal(a, b) for a, b in zip(first, second, strict=True) if a.dim() == 1):
        yield second


def runs_at(
    tensors: Sequence[torch.Tensor],
    axes: Axes,
    base: dict[str, int],
    runs: Callable[[Sequence[torch.Tensor]], bool],
) -> Callable[[dict[str, int]], bool]:
    """Return a function that says whether a module runs at some sizes."""
    return lambda sizes: any(map(runs, all_resized(tensors, axes, base, sizes, 1)))


def find_followers(
    base: dict[str, int], names: Sequence[str], runs: Callable[[dict[str, int]], bool]
) -> dict[str, tuple[str, int]]:
    """Return which of these sizes grow by how many when another one grows by one: {name: (other, by)}."""
    found: dict[str, tuple[str, int]] = {}
    for leader, follower in itertools.permutations(names, 2):
        if follower in found or leader in found:
            continue
        for by in RATIOS:
            if all(
                runs({**base, leader: base[leader] + n, follower: base[follower] + n * by}) for n in (1, 3)
            ):
                found[follower] = leader, by
                break
    return found


def with_followers(base: dict[str, int], followers: dict[str, tuple[str, int]]) -> Iterator[dict[str, int]]:
    """Yield `size_candidates` in which some sizes follow others."""
    free = {name: size for name, size in base.items() if name not in followers}
    for sizes in size_candidates(free):
        following = {
            name: base[name] + by * (sizes[leader] - base[leader]) for name, (leader, by) in followers.items()
        }
        yield {**sizes, **following}
