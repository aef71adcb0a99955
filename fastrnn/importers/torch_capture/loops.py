"""Python loops whose number of steps depends on a size: found in two traces, and what one step does.

A loop leaves the same operators in a trace again and again. Where the trace of a run at other sizes has
more of them, the loop is a `Repeat`: its first record, the records of a step, and the number of steps in
each trace. What the values of a step depend on is worked out in `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastrnn.importers.torch_capture.recorder import Constant, Record, Ref, Refused

MATCHED = (6, 3, 1)  # the records after a loop that have to be the same: as many as another loop leaves
LONGEST = 2000  # records of one step


class Repeat(NamedTuple):
    """Records of a trace that repeat: ``repetitions`` times ``length`` of them, from ``start`` on.

    ``peeled`` steps before or after them are alike, and were made items of their own.
    """

    start: int
    length: int
    repetitions: int
    peeled: int = 0

    def peel(self, is_last: bool) -> list[Any]:
        """The records of the first or the last step as items of their own, and the others."""
        fewer = self._replace(repetitions=self.repetitions - 1, peeled=self.peeled + 1)
        if is_last:
            end = self.start + self.length * self.repetitions
            return [fewer, *range(end - self.length, end)]
        rest = fewer._replace(start=self.start + self.length)
        return [*range(self.start, self.start + self.length), rest]


def signature(record: Record) -> Any:
    """What is the same in every step of a loop: the operator and its constants, without sizes and values."""
    return record.operator, tuple((name, _form(value)) for name, value in record.arguments.items())


def _form(value: Any) -> Any:
    if isinstance(value, Ref):
        return "value"
    if isinstance(value, Constant):
        return value
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, tuple):
        forms = tuple(_form(part) for part in value)
        # Lists of what the steps gave have as many parts as there are steps.
        return ("values",) if forms and set(forms) == {"value"} else forms
    return repr(value)


def find_repeats(traces: Sequence[Sequence[Record]]) -> list[list[Any]]:
    """Return the items of each trace in order: the numbers of records, and `Repeat`s; as many in all.

    Raises
    ------
    Refused
        The traces differ in another way than by the steps of loops.
    """
    signed = [[signature(record) for record in trace] for trace in traces]
    shortest = min(range(len(traces)), key=lambda k: len(signed[k]))
    loops: list[tuple[int, int, int]] = []  # start, length and first record after it, in the shortest trace
    while True:
        items = [_roll(signs, signed[shortest], loops) for signs in signed]
        differing = next(
            (k for k, found in enumerate(items) if found is None or not _same(found, items[shortest])), None
        )
        if differing is None:
            return [_numbers(found) for found in items if found is not None]
        loop = _next_loop(signed[shortest], signed[differing], loops, traces[shortest])
        loops.append(loop)


def _roll(signs: list[Any], model: list[Any], loops: list[tuple[int, int, int]]) -> list[Any] | None:
    """The items of a trace, with these loops of the shortest one: (signature, number) and Repeats."""
    items: list[Any] = []
    at, position = 0, 0
    for start, length, end in loops:
        for _ in range(start - position):
            if at >= len(signs):
                return None
            items.append((signs[at], at))
            at += 1
        body = model[start : start + length]
        count = 0
        while signs[at + count * length : at + (count + 1) * length] == body:
            count += 1
        if count == 0:
            return None
        items.append(Repeat(at, length, count))
        at += count * length
        position = end
    items.extend((signs[i], i) for i in range(at, len(signs)))
    return items


def _same(items: list[Any], model: list[Any] | None) -> bool:
    return (
        model is not None
        and len(items) == len(model)
        and all(
            (isinstance(a, Repeat) and isinstance(b, Repeat) and a.length == b.length)
            or (not isinstance(a, Repeat) and not isinstance(b, Repeat) and a[0] == b[0])
            for a, b in zip(items, model, strict=True)
        )
    )


def _numbers(items: list[Any]) -> list[Any]:
    return [item if isinstance(item, Repeat) else item[1] for item in items]


def _next_loop(
    short: list[Any], other: list[Any], loops: list[tuple[int, int, int]], records: Sequence[Record]
) -> tuple[int, int, int]:
    """The first loop after those that are known, at which the two traces part."""
    a, b = 0, 0  # where both are, after the known loops
    for start, length, end in loops:
        b += start - a
        a = end
        body = short[start : start + length]
        while other[b : b + length] == body:
            b += length
    floor = a
    while a < len(short) and b < len(other) and short[a] == other[b]:
        a, b = a + 1, b + 1
    at = records[min(a, len(records) - 1)].where if records else ""
    for matched in MATCHED:
        for length in range(1, min(b, LONGEST) + 1):
            if other[b : b + length] != other[b - length : b] or a - length < floor:
                continue
            end = b
            while other[end : end + length] == other[b : b + length]:
                end += length
            after = min(matched, len(short) - a)
            if other[end : end + after] == short[a : a + after]:
                start = a - length
                while start > floor and short[start - 1] == short[start - 1 + length]:
                    start -= 1
                count = (a - start) // length
                return start, length, start + count * length
    raise Refused("what it does depends on sizes, and not by the number of steps of a loop", at)
