"""What modules may do with numbers that Python reads from tensors.

A number that depends on inputs decides what the module does next, which no graph can follow. Allowed are
numbers that depend on sizes and constants alone, and the largest of some lengths, which is a size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fastrnn.importers.torch_capture.recorder import Constant, Read, Ref, Refused, Trace

# Their results depend on the shape of what they take, and not on its numbers.
SHAPE_ALONE = {
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty",
}  # fmt: skip
ADVICE = "export the step that is repeated, and keep the decision in Python"


def check_reads(traces: Sequence[Trace], inputs: Sequence[torch.Tensor]) -> None:
    """Raise Refused if the Python code of a module depends on the numbers in tensors."""
    for trace in traces:
        if trace.reads:
            whole = [not t.is_floating_point() and not t.is_complex() for t in inputs]
            depends = _Depends(trace, whole)
            for read in trace.reads:
                if depends.on_inputs(read.value) and not is_length(trace, read, depends):
                    numbers = str(read.numbers)
                    shown = numbers if len(numbers) < 40 else f"{numbers[:40]}…"
                    raise Refused(f"a number of a tensor, read in Python ({shown}): {ADVICE}", read.where)


def lengths_read(trace: Trace) -> list[Read]:
    """The reads of a trace that are sizes."""
    return [
        r for r in trace.reads if type(r.numbers) is int and isinstance(r.value, Ref) and r.value.record >= 0
    ]


class _Depends:
    """Which values of a trace depend on the numbers of inputs, and whether on whole numbers alone."""

    def __init__(self, trace: Trace, whole: Sequence[bool]) -> None:
        self._changed, self._whole = trace.changed, whole
        # None: on no input. True: on inputs of whole numbers. False: on others too.
        self._found: list[bool | None] = []
        for record in trace.records:
            found = [self._of(part) for part in record.arguments.values()]
            depends = [part for part in found if part is not None]
            self._found.append(all(depends) if depends and record.operator not in SHAPE_ALONE else None)

    def _of(self, value: Any) -> bool | None:
        if isinstance(value, Ref):
            return self._whole[value.result] if value.record < 0 else self._found[value.record]
        if isinstance(value, Constant):
            return False if value.name in self._changed else None
        if isinstance(value, tuple):
            found = [part for part in map(self._of, value) if part is not None]
            return all(found) if found else None
        return None

    def on_inputs(self, value: Any) -> bool:
        return self._of(value) is not None

    def on_whole_numbers(self, value: Any) -> bool:
        return self._of(value) is True


def is_length(trace: Trace, read: Read, depends: _Depends) -> bool:
    """Whether a number that was read is the largest of lengths, or the batch size of packed sequences."""
    if type(read.numbers) is not int or not isinstance(read.value, Ref) or read.value.record < 0:
        return False
    record = trace.records[read.value.record]
    if record.operator in ("max", "amax"):
        return depends.on_whole_numbers(read.value)
    source = record.arguments.get("self")
    return (
        record.operator == "select"
        and record.arguments.get("index") == 0
        and isinstance(source, Ref)
        and source.record >= 0
        and trace.records[source.record].operator == "_pack_padded_sequence"
        and source.result == 1
    )
