"""Memory of a plan: values that do not live at the same time share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastrnn.program.planner import Operand, PlannedLoop, PlannedStep
from fastrnn.program.views import Kind, Storage

LINE = 64


def lay_out(items: Sequence[Any]) -> tuple[dict[int, int], int]:
    """Return the offset of every storage of the plan by its id, and the bytes that all of them take.

    A storage lives from the first to the last item that uses it. A loop is one item, so what its steps
    use lives through all of it. The output of a step may take the place of an input that dies there.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    storages: dict[int, Storage] = {}
    for index, item in enumerate(items):
        for operand in _operands(item):
            if operand.storage.kind is Kind.WORK:
                key = id(operand.storage)
                storages[key] = operand.storage
                first.setdefault(key, index)
                last[key] = index
    place = {key: key for key in storages}  # in whose memory a storage lies
    for index, item in enumerate(items):
        if isinstance(item, PlannedStep):
            _share(item, index, first, last, place)
    lives: dict[int, tuple[int, int, int]] = {}  # first, last and bytes of what has memory of its own
    for key in storages:
        owner = _owner(place, key)
        begin, end, size = lives.get(owner, (first[key], last[key], 0))
        lives[owner] = (min(begin, first[key]), max(end, last[key]), max(size, storages[key].bytes))
    offsets: dict[int, int] = {}
    total = 0
    for owner in sorted(lives, key=lambda key: (-lives[key][2], lives[key][0])):
        begin, end, size = lives[owner]
        taken = sorted(
            (offsets[other], offsets[other] + -(-lives[other][2] // LINE) * LINE)
            for other in offsets
            if lives[other][0] <= end and begin <= lives[other][1]
        )
        offset = 0
        for start, stop in taken:
            if offset + size <= start:
                break
            offset = max(offset, stop)
        offsets[owner] = offset
        total = max(total, offset + size)
    return {key: offsets[_owner(place, key)] for key in storages}, total


def _share(
    step: PlannedStep, index: int, first: dict[int, int], last: dict[int, int], place: dict[int, int]
) -> None:
    """Let the first output of a step lie where an input lies that nobody reads after it."""
    if not step.in_place:
        return
    target = step.outputs[0]
    if target.storage.kind is not Kind.WORK or target.offset:
        return
    for number in step.in_place:
        source = step.inputs[number]
        key = id(source.storage)
        readers = sum(operand.storage is source.storage for operand in step.inputs)
        if (
            source.storage.kind is Kind.WORK
            and not source.offset
            and source.storage.bytes == target.storage.bytes
            and last[key] == index
            and first[id(target.storage)] == index
            and readers == 1
        ):
            place[id(target.storage)] = key
            return


def _owner(place: dict[int, int], key: int) -> int:
    while place[key] != key:
        key = place[key]
    return key


def _operands(item: Any) -> list[Operand]:
    steps = item.steps if isinstance(item, PlannedLoop) else [item]
    return [operand for step in steps for operand in (*step.inputs, *step.outputs)]
