"""The grid of narrow precisions: its cases, their targets, and what the machine could do at most."""

import numpy as np

from bench.cases import OWN, POOL_STREAMS, Case
from fastrnn.benchmark.engines import Fastrnn
from fastrnn.checks import PRECISIONS
from fastrnn.narrow import STORAGES

# A target beyond what the machine allows is replaced by this share of what it allows.
LIMIT_SHARE = 0.85
# What the gates of 16 units of an LSTM took in float32, in nanoseconds, on a core with GATE_GFLOPS there.
# GATE_SHARE of it counts, scaled by the peak that is measured in the same run: narrow gates may be coarser.
GATE_NANOSECONDS, GATE_GFLOPS, GATE_SHARE = 11.0, 243.0, 0.6
# Exponentials of a unit's gates, by which the other cells are scaled.
GATE_FUNCTIONS = {"LSTM": 5, "GRU": 3, "RNN": 1}
# Numbers that are sums of several narrow ones: how many, and how many products of them are added.
SPLIT = {"bfloat16x2": ("bfloat16", 2, 3), "bfloat16x3": ("bfloat16", 3, 6)}

LSTM_CASES = {
    "step 128": {"hidden_size": 128, "mode": "step"},
    "step 512": {"hidden_size": 512, "mode": "step"},
    "step 1024": {"hidden_size": 1024, "mode": "step"},
    "100x1 128": {"hidden_size": 128, "T": 100},
    "100x1 256": {"hidden_size": 256, "T": 100},
    "100x1 512": {"hidden_size": 512, "T": 100},
    "50x1 1024": {"hidden_size": 1024, "T": 50},
    "100x8 256": {"hidden_size": 256, "T": 100, "B": 8},
    "100x32 256": {"hidden_size": 256, "T": 100, "B": 32},
    "25x64 1024": {"hidden_size": 1024, "T": 25, "B": 64},
    "pool 128": {"hidden_size": 128, "B": POOL_STREAMS, "mode": "pool"},
}
# The best peer's time over ours, by precision and case. What a table does not name is not in its grid.
WITH_AMX = {
    "bfloat16": dict(zip(LSTM_CASES, (4, 2, 1.45, 1.45, 1.4, 1.6, 1.4, 1.7, 1.8, 1.45, 2.7), strict=True)),
    "int8": dict(zip(LSTM_CASES, (4, 2.2, 1.35, 2.3, 2.1, 1.7, 1.65, 3.8, 4.3, 3.5, 3.5), strict=True)),
    "bfloat16x3": {"100x32 256": 1.3, "25x64 1024": 1.5, "pool 128": 1.5},
    "bfloat16x2": {"100x32 256": 2.0, "25x64 1024": 2.2, "pool 128": 2.0},
}
WITHOUT_AMX = {
    "bfloat16": {"100x1 128": 1.3, "100x1 256": 1.3, "100x1 512": 1.3, "50x1 1024": 1.3, "100x32 256": 1.05},
    "int8": {"100x1 128": 1.4, "100x1 256": 1.3, "100x1 512": 1.2, "50x1 1024": 1.1, "100x32 256": 1.1},
}
# Layers that peers do not have at these widths: our own time in float32 over ours, at one row and at 32.
BESIDE_FLOAT32 = {"bfloat16": {1: 1.7, 32: 3.0}, "int8": {1: 3.0, 32: 3.0}}


class NarrowCase(Case):
    """A case with narrow weights."""

    @property
    def weight_bytes(self):
        """What a weight takes."""
        storage, parts, _ = SPLIT.get(self.precision, (self.precision, 1, 1))
        return parts * np.dtype(STORAGES[storage]).itemsize

    def wanted(self, at_limit):
        """The target, or a share of the ratio at the machine's limit if that is lower."""
        return self.target if at_limit is None else min(self.target, LIMIT_SHARE * at_limit)

    def limit(self, limits, threads=1):
        """The limit of the machine: ("products" or "reading", None, microseconds).

        In each step the recurrent weights are read at their cache level's speed while products are made at
        the peak of the instruction that is used. The slower of the two counts, and the gates come after it.
        The product with the inputs of all steps is one.
        """
        of_inputs = self._sizes("weight_ih")
        of_states = self._sizes("weight_hh") + self._sizes("weight_hr")
        inputs, recurrent = sum(of_inputs), sum(of_states)
        reading_inputs, reading_states = (self._reading(limits, m, threads) for m in (of_inputs, of_states))
        instruction, _, products = SPLIT.get(self.precision, (self.precision, 1, 1))

        def multiplying(numbers, rows):
            return products * limits.microseconds(instruction, numbers, rows) / threads

        gates = self._gates(limits, threads)
        if self.T == 1:
            product, read = multiplying(inputs + recurrent, self.B), reading_inputs + reading_states
            return self._limit(product, read, max(product, read) + gates)
        product, read = multiplying(recurrent, self.B), reading_states
        first = max(multiplying(inputs, self.T * self.B), reading_inputs)
        return self._limit(product, read, self.T * (max(product, read) + gates) + first)

    def _limit(self, product, read, microseconds):
        return "products" if product > read else "reading", None, microseconds

    def _reading(self, limits, matrices, threads):
        """Microseconds to read the weights of some matrices once, each with its own layer and direction."""
        sizes = [self.weight_bytes * numbers / threads for numbers in matrices]
        return sum(size / limits.gigabytes(size) / 1e3 for size in sizes)

    def _gates(self, limits, threads):
        """Microseconds for the gates of one step."""
        shape = self.shape()
        units = self.B * shape.hidden_size * shape.num_layers * shape.directions
        share = GATE_SHARE * GATE_FUNCTIONS[self.kind] / GATE_FUNCTIONS["LSTM"]
        scale = GATE_GFLOPS / limits.gflops["float32"]
        return share * scale * GATE_NANOSECONDS * units / 16 / 1e3 / threads


class InFloat32(Fastrnn):
    """This library with the same weights in float32."""

    name = OWN

    def build(self, work):
        return super().build(work.widened())


IN_FLOAT32 = InFloat32()


def grid_of(precision, has_amx):
    """The cases of a precision, with the targets for processors with AMX or without it."""
    targets = (WITH_AMX if has_amx else WITHOUT_AMX).get(precision, {})
    cases = [
        NarrowCase(
            "LSTM", LSTM_CASES[name]["hidden_size"], **LSTM_CASES[name], precision=precision, target=target
        )
        for name, target in targets.items()
    ]
    for B, target in BESIDE_FLOAT32.get(precision, {}).items():
        if B > 1 and not has_amx:
            continue
        for kind, proj_size in (("GRU", 0), ("RNN", 0), ("LSTM", 256)):
            options = {"T": 100, "B": B, "proj_size": proj_size}
            cases.append(
                NarrowCase(kind, 512, 512, **options, precision=precision, target=target, against=OWN)
            )
    return cases


# The precisions that this library has of those with targets.
NARROW_GRIDS = tuple(precision for precision in WITH_AMX if precision in PRECISIONS)
