"""What a module does at some sizes alone, and what changes nothing at the others: a pad to an even length.

Where one trace has such an operator and another has not, the other one gets it with numbers with which it
changes nothing: padding of 0, a slice of everything, zeros of no steps that are joined. The numbers are then
expressions of sizes as all others are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastrnn.importers.torch_capture.loops import signature
from fastrnn.importers.torch_capture.recorder import Constant, Record, Ref, Refused, Trace

PADS = ("pad", "constant_pad_nd", "reflection_pad1d", "replication_pad1d")
SLICES = ("slice", "narrow")
FILLS = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
JOINS = ("cat", "concat", "concatenate")
MATCHED = 3  # the records after it that have to be the same

Shapes = Sequence[tuple[int, ...]]


class TooFew(Refused):
    """One trace alone has an operator, which does not tell what its numbers depend on."""


def with_optional(traces: Sequence[Trace], input_shapes: Sequence[Shapes]) -> list[Trace]:
    """Return the traces, each with the operators that others have and that change nothing in it.

    input_shapes: for each trace, the shapes of the inputs.

    Raises
    ------
    TooFew
        More traces are needed.
    """
    aligned = [_Aligned(trace, shapes) for trace, shapes in zip(traces, input_shapes, strict=True)]
    first = aligned[0]
    for other in (*aligned[1:], *aligned[1:]):
        _align(first, other)
    if not any(each.neutral for each in aligned):
        return list(traces)
    for number in {number for each in aligned for number in each.neutral}:
        if len(aligned) - sum(number in each.neutral for each in aligned) < 2:
            at = first.records[number].where
            raise TooFew(
                "what it does at one size alone of those that were tried: give an example of another size", at
            )
    _share_uses(aligned)
    return [each.trace() for each in aligned]


class _Aligned:
    """A trace whose records get further ones. neutral: what those among them that change nothing take."""

    def __init__(self, trace: Trace, input_shapes: Shapes) -> None:
        self._trace, self._input_shapes = trace, input_shapes
        self.records = list(trace.records)
        self.signed = [signature(record) for record in self.records]
        self.outputs, self.changed = list(trace.outputs), dict(trace.changed)
        self.reads = list(trace.reads)
        self.neutral: dict[int, Any] = {}

    def trace(self) -> Trace:
        return self._trace._replace(
            records=self.records, outputs=self.outputs, changed=self.changed, reads=self.reads
        )

    def shape(self, value: Ref | Constant) -> tuple[int, ...]:
        if isinstance(value, Constant):
            return tuple(self._trace.constants[value.name].shape)
        if value.record < 0:
            return self._input_shapes[value.result]
        shape, _ = self.records[value.record].results[value.result]
        return shape

    def change(self, start: int, change: Any) -> None:
        """Change the values that the records from one on take, and those that are given in the end."""
        for number in range(start, len(self.records)):
            arguments = self.records[number].arguments
            made = {key: _changed(value, change) for key, value in arguments.items()}
            self.records[number] = self.records[number]._replace(arguments=made)
        self.outputs = [_changed(value, change) for value in self.outputs]
        self.changed = {name: _changed(value, change) for name, value in self.changed.items()}
        self.reads = [read._replace(value=_changed(read.value, change)) for read in self.reads]

    def insert(self, at: int, records: Sequence[Record], source: Any) -> None:
        """Put records in that leave a value as it is."""
        more = len(records)

        def moved(value: Ref) -> Ref:
            return value._replace(record=value.record + more) if value.record >= at else value

        self.change(at, moved)
        self.neutral = {n + more if n >= at else n: _changed(v, moved) for n, v in self.neutral.items()}
        self.records[at:at] = records
        self.signed[at:at] = [signature(record) for record in records]
        self.neutral[at + more - 1] = source

    def is_same(self, number: int, value: Any) -> bool:
        """Whether a record gives a value, through records that change nothing."""
        at = number
        while at in self.neutral:
            source = self.neutral[at]
            if source == value:
                return True
            at = source.record if isinstance(source, Ref) else -1
        return False


def _align(first: _Aligned, second: _Aligned) -> None:
    """Give each of two traces what the other one has before it, up to where they differ in another way."""
    at = 0
    while at < min(len(first.records), len(second.records)):
        if first.signed[at] == second.signed[at]:
            at += 1
            continue
        for given, taken in ((first, second), (second, first)):
            found = _neutral(given, taken, at)
            if found is not None:
                taken.insert(at, *found)
                at += len(found[0])
                break
        else:
            return


def _neutral(given: _Aligned, taken: _Aligned, at: int) -> tuple[list[Record], Any] | None:
    """The records of one trace at a place as they change nothing in the other, and what they take."""
    record = given.records[at]
    count = 2 if record.operator in FILLS else 1
    after = taken.signed[at : at + MATCHED]
    if given.signed[at + count : at + count + len(after)] != after:
        return None
    if record.operator in FILLS:
        return _empty_join(given, taken, at) if at + 1 < len(given.records) else None
    source = record.arguments.get("self")
    if not isinstance(source, (Ref, Constant)) or len(record.results) != 1:
        return None
    shape = taken.shape(source)
    changes: dict[str, Any]
    if record.operator in PADS:
        changes = {"pad": (0,) * len(record.arguments["pad"])}
    elif record.operator in SLICES and record.arguments.get("step", 1) == 1:
        size = shape[record.arguments.get("dim", 0)]
        if record.operator == "narrow":
            changes = {"start": 0, "length": size}
        else:
            # A bound that is after the end here is the same in both.
            changes = {"start": 0, "end": max(size, record.arguments.get("end") or 0)}
    else:
        return None
    if not changes.keys() <= record.arguments.keys():
        return None
    dtype = record.results[0][1]
    made = record._replace(arguments={**record.arguments, **changes}, results=[(shape, dtype)])
    return [made], source


def _empty_join(given: _Aligned, taken: _Aligned, at: int) -> tuple[list[Record], Any] | None:
    """`cat([x, zeros])` with zeros of no steps."""
    fill, join = given.records[at : at + 2]
    parts = join.arguments.get("tensors")
    if join.operator not in JOINS or not isinstance(parts, tuple) or len(parts) != 2 or Ref(at) not in parts:
        return None
    source = parts[1 - parts.index(Ref(at))]
    if not isinstance(source, (Ref, Constant)) or not isinstance(fill.arguments.get("size"), tuple):
        return None
    shape = taken.shape(source)
    axis = join.arguments.get("dim", 0) % len(shape)
    size = (*shape[:axis], 0, *shape[axis + 1 :])
    empty = fill._replace(arguments={**fill.arguments, "size": size}, results=[(size, fill.results[0][1])])
    return [empty, join._replace(results=[(shape, join.results[0][1])])], source


def _share_uses(aligned: Sequence[_Aligned]) -> None:
    """Let all traces take what was put in where one of them takes it."""
    same = 0
    shortest = min(len(each.records) for each in aligned)
    while same < shortest and all(each.signed[same] == aligned[0].signed[same] for each in aligned):
        same += 1

    def shared(values: list[Any]) -> list[Any]:
        if all(type(value) is tuple for value in values) and len({len(value) for value in values}) == 1:
            parts = [shared(list(part)) for part in zip(*values, strict=True)]
            return [tuple(part[k] for part in parts) for k in range(len(values))]
        latest = max((v.record for v in values if isinstance(v, Ref)), default=-1)
        return [
            Ref(latest) if isinstance(value, (Ref, Constant)) and each.is_same(latest, value) else value
            for each, value in zip(aligned, values, strict=True)
        ]

    for number in range(same):
        for key in aligned[0].records[number].arguments:
            values = [each.records[number].arguments.get(key) for each in aligned]
            for each, value in zip(aligned, shared(values), strict=True):
                arguments = each.records[number].arguments
                if key in arguments:
                    each.records[number] = each.records[number]._replace(arguments={**arguments, key: value})
    if all(len(each.records) == same for each in aligned):
        for index in range(len(aligned[0].outputs)):
            for each, value in zip(aligned, shared([e.outputs[index] for e in aligned]), strict=True):
                each.outputs[index] = value
        return
    # After loops of different lengths all take the new values.
    for each in aligned:
        for number, source in sorted(each.neutral.items()):

            def put(value: Any, number: int = number, source: Any = source) -> Any:
                return Ref(number) if value == source else value

            each.change(max(same, number + 1), put)


def _changed(value: Any, change: Any) -> Any:
    """An argument with other values."""
    if isinstance(value, (Ref, Constant)):
        return change(value) if isinstance(value, Ref) else value
    if type(value) is tuple:
        return tuple(_changed(part, change) for part in value)
    return value
