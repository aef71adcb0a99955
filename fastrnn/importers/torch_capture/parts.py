"""Operators that give as many parts of a tensor as a size says: as one operator for each part in use.

`x.unbind(1)` in a loop over its parts is then the same as `x[:, t]` in each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastrnn.importers.torch_capture.recorder import Constant, Record, Ref, Trace

APART = ("unbind", "split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")


def without_parts(traces: Sequence[Trace]) -> list[Trace]:
    """Return the traces with an operator at the first use of each part whose number is a size."""
    counts: dict[tuple[str, str], set[int]] = {}
    for trace in traces:
        for record in trace.records:
            if record.operator in APART:
                counts.setdefault((record.operator, record.where), set()).add(len(record.results))
    varied = {place for place, found in counts.items() if len(found) > 1}
    return [_Rewritten(trace, varied).trace for trace in traces] if varied else list(traces)


class _Rewritten:
    def __init__(self, trace: Trace, varied: set[tuple[str, str]]) -> None:
        self._old = trace.records
        self._new: list[Record] = []
        self._places: dict[Ref, Ref] = {}
        for number, record in enumerate(trace.records):
            if (record.operator, record.where) in varied:
                continue
            arguments = {key: self._value(value, record.where) for key, value in record.arguments.items()}
            for result in range(len(record.results)):
                self._places[Ref(number, result)] = Ref(len(self._new), result)
            self._new.append(record._replace(arguments=arguments))
        at = trace.records[-1].where
        outputs = [self._value(value, at) for value in trace.outputs]
        changed = {name: self._value(value, at) for name, value in trace.changed.items()}
        reads = [read._replace(value=self._value(read.value, read.where)) for read in trace.reads]
        self.trace = trace._replace(records=self._new, outputs=outputs, changed=changed, reads=reads)

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, Ref) and value.record >= 0:
            return self._places.get(value) or self._part(value, where)
        if isinstance(value, tuple) and not isinstance(value, (Ref, Constant)):
            return tuple(self._value(part, where) for part in value)
        return value

    def _part(self, value: Ref, where: str) -> Ref:
        record = self._old[value.record]
        source = self._value(record.arguments["self"], where)
        shapes = [shape for shape, _ in record.results]
        dim = record.arguments.get("dim", 0)
        if record.operator == "unbind":
            made = Record("select", {"self": source, "dim": dim, "index": value.result}, [], where)
        else:
            start = sum(shape[dim] for shape in shapes[: value.result])
            end = start + shapes[value.result][dim]
            made = Record(
                "slice", {"self": source, "dim": dim, "start": start, "end": end, "step": 1}, [], where
            )
        self._new.append(made._replace(results=[record.results[value.result]]))
        self._places[value] = Ref(len(self._new) - 1)
        return self._places[value]
