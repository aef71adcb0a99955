"""The grid of cases and their targets. They are declared here, and none is picked afterwards."""

from dataclasses import asdict, dataclass

import numpy as np

from fastrnn.benchmark.work import Work, ragged_lengths
from fastrnn.checks import PRECISIONS
from fastrnn.spec import LayerSpec, RecurrentSpec

# What a case is compared with: the best of all peers; torch alone, if the others lack the feature or nobody
# uses them for it; ONNX Runtime, for pools; the recorded times of RTNeural; or our own time in float32, where
# no peer has such weights.
PEERS, TORCH, ONNX, RTNEURAL, OWN = "peers", "torch", "onnxruntime", "rtneural", "fastrnn in float32"
# Targets: the geometric mean of the ratios over the cases with PEERS, and the lowest ratio of all cases.
GEOMETRIC_MEAN = 2.0
MINIMUM = 1.05
# Targets with more than one thread: the geometric mean over the sequences; how many times faster than on one
# thread some cases are on two; and the same for all cases while another process keeps a core busy.
SEQUENCE_MEAN = 1.6
SCALING = {
    "LSTM 256->256, 100x1": 1.8,
    "LSTM 512->512, 100x1": 1.8,
    "LSTM 1024->1024, 100x1": 1.8,
    "LSTM 256->256, 100x32": 1.85,
    "LSTM 256->256 both ways, 100x1": 1.8,
    "LSTM 64->64, 100x1": 1 / 1.03,
}
SCALING_WHILE_BUSY = 1 / 1.3
# Targets as a share of the machine's limit: of the multiply-add peak from 32 rows on, and of the bandwidth
# at which weights can be read at one row.
PEAK_SHARE = 0.90
BANDWIDTH_SHARE = 0.85

# Targets for a pool of POOL_STREAMS streams: the time of other ways over that of one `pool.step` of all, and
# how many times as long streams in random order may take.
POOL_STREAMS = 1024
POOL_RATIOS = {"a lone stream": 2.0, "onnxruntime by hand": 8.0}
POOL_ORDER = 1.1

# RTNeural (C++, with sizes known to the compiler), LSTM 1->H: microseconds per sample, recorded on a core
# with RTNEURAL_GFLOPS in float32. They are scaled by the peak that is measured in the same run.
RTNEURAL_MICROSECONDS = {16: 0.041, 32: 0.19, 64: 0.61, 128: 2.56}
RTNEURAL_GFLOPS = 250.0


def random_tensors(random, spec, precision):
    """Random weights of torch's usual scale for a RecurrentSpec, by torch's names."""
    bound = 1 / np.sqrt(spec.hidden_size)
    shapes = spec.tensor_shapes().items()
    return {name: random.uniform(-bound, bound, shape).astype(precision) for name, shape in shapes}


@dataclass(frozen=True)
class Case:
    """A recurrent layer, a batch and a number of time steps; and the ratio that is wanted of them.

    The modes are those of `Work`. The ratio is the time of what the case is compared with (`against`) over
    ours.
    """

    kind: str
    input_size: int
    hidden_size: int
    T: int = 1
    B: int = 1
    mode: str = "sequence"
    num_layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    precision: str = "float32"
    is_ragged: bool = False
    target: float = MINIMUM
    against: str = PEERS

    @property
    def name(self):
        """The name in tables: LSTM 128->128, 100x32."""
        words = [f"{self.kind} {self.input_size}->{self.hidden_size}"]
        words += [f"x{self.num_layers}"] if self.num_layers > 1 else []
        words += ["both ways"] if self.bidirectional else []
        words += [f"proj {self.proj_size}"] if self.proj_size else []
        words += [self.precision] if self.precision != "float32" else []
        words += ["ragged"] if self.is_ragged else []
        amount = f"{self.T}x{self.B}"
        if self.mode == "step":
            amount = "step" if self.B == 1 else f"step x{self.B}"
        elif self.mode == "pool":
            amount = f"pool of {self.B}"
        elif self.mode == "block":
            amount = f"chunk of {amount}"
        return f"{' '.join(words)}, {amount}"

    def shape(self):
        """The RecurrentSpec of the layer."""
        return RecurrentSpec(
            self.kind,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bidirectional,
            self.proj_size,
        )

    def work(self, threads=1):
        """The Work, with seeded weights of torch's usual scale."""
        random = np.random.default_rng(self.hidden_size)
        tensors = random_tensors(random, self.shape(), PRECISIONS[self.precision])
        spec = LayerSpec(self.kind, {"precision": self.precision}, tensors)
        return Work((spec,), self.T, self.B, self.mode, self.lengths(), threads)

    def lengths(self):
        """The time steps of each row, or None if all have T."""
        return ragged_lengths(self.T, self.B) if self.is_ragged else None

    def as_dict(self):
        """The case for the result file."""
        return {"name": self.name, **asdict(self)}

    # ---------------------------------------------------------------- what the machine has to do

    def _sizes(self, beginning):
        """How many numbers the matrices of one kind have, for each layer and direction."""
        shapes = self.shape().tensor_shapes()
        return [int(np.prod(shape)) for name, shape in shapes.items() if name.startswith(beginning)]

    def flops(self):
        """Floating-point operations of all products with weights. A multiply-add counts as two."""
        steps = sum(self.lengths() or [self.T] * self.B)
        return 2 * steps * sum(self._sizes("weight"))

    def bytes(self):
        """The bytes that must be read and written: recurrent weights at every step, everything else once."""
        recurrent = sum(self._sizes("weight_hh")) + sum(self._sizes("weight_hr"))
        width = self.shape().directions * self.shape().output_size
        rows = self.T * self.B * (self.input_size + width)
        weights = self.weight_bytes * (self.T * recurrent + sum(self._sizes("weight_ih")))
        return weights + np.dtype(PRECISIONS[self.precision]).itemsize * rows

    @property
    def weight_bytes(self):
        """What a weight takes."""
        return np.dtype(PRECISIONS[self.precision]).itemsize

    def wanted(self, at_limit):
        """The ratio that is wanted, given the one that an engine at the machine's limit has, or None."""
        return self.target

    def limit(self, limits, threads=1):
        """The limit of the machine: ("peak" or "bandwidth", the share wanted or None, microseconds).

        With more than one row the limit is the "peak": all products at the measured rate of multiply-adds.
        With one row it is the "bandwidth": the weights are read once per step, as fast as this machine reads
        a working set of their size. In a sequence only the recurrent weights are, one layer and direction at
        a time. The product with the inputs is one for all steps, at the peak. Several threads have a core
        each, share the work evenly and never wait. A share of the limit is wanted only on one thread.
        """
        peak = threads * limits.gflops[self.precision] * 1e3  # operations per microsecond
        if self.B > 1:
            wanted = PEAK_SHARE if self.B >= 32 and threads == 1 else None
            return "peak", wanted, self.flops() / peak
        wanted = BANDWIDTH_SHARE if threads == 1 else None

        def reading(numbers):
            own = self.weight_bytes * numbers / threads
            return own / limits.gigabytes(own) / 1e3

        if self.mode == "step":
            return "bandwidth", wanted, reading(sum(self._sizes("weight")))
        inputs = 2 * sum(self._sizes("weight_ih")) / peak
        return "bandwidth", wanted, self.T * (sum(map(reading, self._sizes("weight_h"))) + inputs)


KINDS = ("LSTM", "GRU", "RNN")
STEP_TARGETS = {32: 8.0, 64: 8.0, 96: 5.0, 128: 4.0, 256: 1.8, 512: 1.3, 1024: 1.4}
LSTM_TARGETS = {64: 2.0, 128: 1.5, 256: 1.4, 512: 1.2, 1024: 1.15}
LONG_TARGETS = {16: 1.0, 32: 1.3, 64: 1.3, 128: 1.3}

STEPS = [
    Case(kind, size, size, mode="step", target=target)
    for kind in KINDS
    for size, target in STEP_TARGETS.items()
]
SEQUENCES = [
    *(Case("LSTM", size, size, T=100, target=target) for size, target in LSTM_TARGETS.items()),
    *(Case(kind, size, size, T=100, target=1.5) for kind in ("GRU", "RNN") for size in (128, 256)),
    *(
        Case(kind, size, size, T=100, B=B, target=1.1)
        for kind in KINDS
        for size in (128, 256)
        for B in (8, 32)
    ),
    Case("LSTM", 1024, 1024, T=100, B=64, target=1.1),
    Case("LSTM", 256, 512, T=100, B=128, target=1.1),
    Case("LSTM", 256, 256, T=100, num_layers=2, bidirectional=True, target=1.4),
]
# One bidirectional layer, and stacks: measured only on several threads.
FOR_THREADS = [
    Case("LSTM", 256, 256, T=100, bidirectional=True),
    Case("LSTM", 64, 64, T=100, num_layers=2),
    Case("LSTM", 128, 128, T=100, num_layers=3),
]
BESIDE_TORCH = [
    Case("LSTM", 128, 128, T=100, B=B, target=3.0, against=TORCH, **options)
    for options in ({"is_ragged": True}, {"proj_size": 64}, {"precision": "float64"})
    for B in (1, 32)
]
LONG = [
    Case("LSTM", 1, size, T=48000, target=target, against=RTNEURAL) for size, target in LONG_TARGETS.items()
]
POOLS = [
    Case(
        "LSTM", 128, 128, B=streams, mode="pool", against=ONNX,
        target=1.15 if streams == POOL_STREAMS else MINIMUM,
    )
    for streams in (16, 64, 256, POOL_STREAMS)
]  # fmt: skip
# Chunks of live sequences: measured only when builds are compared.
CHUNKS = [
    *(Case(kind, 128, 128, T=64, B=B, mode="block") for kind in KINDS for B in (1, 32)),
    Case("LSTM", 1, 32, T=64, mode="block"),
]
GRID = (*STEPS, *SEQUENCES, *BESIDE_TORCH, *LONG, *POOLS)
GRID_OF_THREADS = (*STEPS, *SEQUENCES, *FOR_THREADS)
GRID_OF_BUILDS = (*GRID, *FOR_THREADS, *CHUNKS)

# The rows of the tables in docs/speed.md.
SHOWN = (
    *(f"{kind} {size}->{size}, step" for kind in KINDS for size in (32, 128, 512)),
    *(f"LSTM {size}->{size}, 100x1" for size in (64, 256, 1024)),
    "GRU 128->128, 100x1",
    "LSTM 256->256 x2 both ways, 100x1",
    "LSTM 128->128, 100x8",
    "LSTM 256->256, 100x32",
    "GRU 256->256, 100x32",
    "LSTM 1024->1024, 100x64",
    "LSTM 128->128 ragged, 100x32",
    "LSTM 1->32, 48000x1",
)
SHOWN_OF_THREADS = (
    *SCALING,
    "LSTM 1024->1024, step",
    "GRU 256->256, 100x1",
    "LSTM 128->128 x3, 100x1",
    "LSTM 1024->1024, 100x64",
)
