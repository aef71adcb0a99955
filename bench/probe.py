"""The machine's limits, measured by probe.c and probe_narrow.c: products and bytes read per second."""

import ctypes
import os
import shlex
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fastrnn.benchmark.measure import seconds_of_one
from fastrnn.engine.backends import ISAS, pick_isa

SOURCE = Path(__file__).with_name("probe.c")
NARROW_SOURCE = Path(__file__).with_name("probe_narrow.c")
# For each instruction set: bytes in a vector, sums in flight, and compiler flags. On a baseline without fused
# multiply-adds, a multiplication and an addition count as one.
_AVX512 = (64, 24, ["-mavx512f", "-mfma"])
_AVX2 = (32, 12, ["-mavx2", "-mfma"])
BUILDS = {
    "amx": _AVX512,
    "avx512_vnni": _AVX512,
    "avx512": _AVX512,
    "avx2_vnni": _AVX2,
    "avx2": _AVX2,
    "neon": (16, 24, []),
    "baseline": (16, 12, []),
}
# The products of narrow weights, by probe_narrow.c: compiler flags, and for each precision the function, how
# many operations it does in a round for each row, and the numbers of rows that are timed. Where nothing is
# said of a precision it is widened, and its peak is float32's.
_VNNI = [*_AVX512[2], "-mavx512bw", "-mavx512vnni"]
TILE_ROWS = (4, 8, 16)
NARROW_BUILDS = {
    "amx": (
        ["-DTILES", *_VNNI, "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
        {
            "bfloat16": ("tiles_bfloat16", 4 * 2 * 16 * 32, TILE_ROWS),
            "int8": ("tiles_int8", 4 * 2 * 16 * 64, TILE_ROWS),
        },
    ),
    "avx512_vnni": (_VNNI, {"int8": ("sums_int8", 24 * 2 * 64, (1,))}),
    "avx512": ([*_AVX512[2], "-mavx512bw"], {"int8": ("sums_int8", 24 * 2 * 32, (1,))}),
    "avx2_vnni": (["-mavx2", "-mavxvnni"], {"int8": ("sums_int8", 12 * 2 * 32, (1,))}),
    "avx2": (["-mavx2"], {"int8": ("sums_int8", 12 * 2 * 16, (1,))}),
}
WORKING_SETS = tuple(2**exponent for exponent in range(14, 29))  # 16 KB to 256 MB
SECONDS = 0.003  # that one timing takes
REPEATS = 7
PEAK_REPEATS = 25


@dataclass(frozen=True)
class Limits:
    """What one core can do at most.

    Attributes
    ----------
    isa : str
        The instruction set that was measured, the one that the kernels use.
    gflops : dict
        For each precision, 10^9 floating-point operations per second. A multiply-add counts as two.
    bandwidth : list of (bytes, GB/s)
        How fast a working set of that size is read again and again.
    caches : dict
        Bytes of each cache, if the system tells: {"L1": 49152, ...}.
    products : dict
        For narrow precisions, 10^9 operations per second of products by the number of their rows:
        {"int8": {4: 3200.0, 8: 6000.0, 16: 7500.0}}. A multiply-add counts as two.
    """

    isa: str
    gflops: dict
    bandwidth: list
    caches: dict
    products: dict = field(default_factory=dict)

    def microseconds(self, precision, numbers, rows):
        """The time of products of this many weights with rows, in the instructions of a precision."""
        rates = self.products.get(precision, {1: self.gflops["float32"]})
        largest = max(rates)
        whole, rest = divmod(rows, largest)
        micros = 2 * numbers * largest * whole / rates[largest] / 1e3
        if rest:
            size = min(size for size in rates if size >= rest)
            micros += 2 * numbers * size / rates[size] / 1e3
        return micros

    def gigabytes(self, working_set):
        """GB/s at which a working set of this many bytes is read again and again."""
        sizes, speeds = zip(*self.bandwidth, strict=True)
        return float(np.interp(np.log2(working_set), np.log2(sizes), speeds))

    def best(self, other):
        """The higher of two measurements, figure by figure."""
        return Limits(
            self.isa,
            {name: max(value, other.gflops[name]) for name, value in self.gflops.items()},
            [
                (size, max(mine, theirs))
                for (size, mine), (_, theirs) in zip(self.bandwidth, other.bandwidth, strict=True)
            ],
            self.caches,
            {
                name: {rows: max(rate, other.products[name][rows]) for rows, rate in rates.items()}
                for name, rates in self.products.items()
            },
        )

    def as_dict(self):
        """The limits for the result file."""
        return asdict(self)


class NoCompiler(Exception):
    """No C compiler here builds the probe."""


def probe():
    """Measure the Limits of the core that this runs on. Takes about two seconds.

    Every figure is the best of several short repeats, since a limit is what the machine can do when nothing
    disturbs it.

    Raises
    ------
    NoCompiler
        ``$CC`` or ``cc`` is missing, or does not build probe.c.
    """
    isa = pick_isa() if ISAS else "baseline"
    width, accumulators, flags = BUILDS[isa]
    library = _compile([f"-DWIDTH={width}", f"-DACCUMULATORS={accumulators}", *flags])
    gflops = {}
    for precision, function in (
        ("float32", library.multiply_adds_f32),
        ("float64", library.multiply_adds_f64),
    ):
        lanes = width // np.dtype(precision).itemsize
        rounds = _rounds(function)
        seconds = min(_seconds(function, rounds) for _ in range(PEAK_REPEATS))
        gflops[precision] = 2 * lanes * accumulators * rounds / seconds / 1e9
    # In a NumPy array, like the weights of the engine.
    memory = np.ones(WORKING_SETS[-1] + 64, np.uint8)
    address = memory.ctypes.data + -memory.ctypes.data % 64
    bandwidth = [(size, _bandwidth(library, address, size)) for size in WORKING_SETS]
    return Limits(isa, gflops, bandwidth, _caches(), _products(isa))


def _products(isa):
    """The rates of products of narrow weights. None of them where the instruction set has no own ones."""
    if isa not in NARROW_BUILDS:
        return {}
    flags, functions = NARROW_BUILDS[isa]
    library = _compile(flags, NARROW_SOURCE)
    if isa == "amx" and not library.tiles_allowed():
        return _products("avx512_vnni")
    found = {}
    for precision, (name, operations, sizes) in functions.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_int, ctypes.c_long], ctypes.c_int
        found[precision] = {}
        for rows in sizes:
            call = partial(function, rows)
            rounds = _rounds(call)
            seconds = min(_seconds(call, rounds) for _ in range(PEAK_REPEATS))
            found[precision][rows] = operations * rows * rounds / seconds / 1e9
    return found


def _bandwidth(library, address, size):
    """GB/s of the faster of the two ways to read."""
    best = 0.0
    for function in (library.read_plain, library.read_ahead):
        read = partial(function, address, size)
        rounds = _rounds(read)
        repeats = REPEATS if rounds > 1 else 3
        seconds = min(_seconds(read, rounds) for _ in range(repeats))
        best = max(best, size * rounds / seconds / 1e9)
    return best


def _seconds(function, rounds):
    began = time.perf_counter()
    function(rounds)
    return time.perf_counter() - began


def _rounds(function):
    """How many rounds take about SECONDS."""
    return max(1, round(SECONDS / seconds_of_one(partial(_seconds, function), SECONDS / 2)))


def _compile(flags, source=SOURCE):
    """A library of a source with the functions of probe.c declared, if it has them."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "probe.so")
        command = [
            *compiler,
            "-O2",
            "-ffp-contract=fast",
            "-shared",
            "-fPIC",
            *flags,
            str(source),
            "-o",
            output,
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
            library = ctypes.CDLL(output)
        except OSError as error:
            raise NoCompiler(f"{compiler[0]}: {error.strerror or error}") from error
        except subprocess.CalledProcessError as error:
            raise NoCompiler(f"{compiler[0]}: {error.stderr.strip()[:200]}") from error
    if source != SOURCE:
        return library
    library.multiply_adds_f32.restype = ctypes.c_float
    library.multiply_adds_f64.restype = ctypes.c_double
    for name in ("multiply_adds_f32", "multiply_adds_f64"):
        getattr(library, name).argtypes = [ctypes.c_long]
    for name in ("read_plain", "read_ahead"):
        getattr(library, name).restype = ctypes.c_float
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
    return library


def _caches():
    """Bytes of the caches that hold data, from Linux."""
    caches = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            caches[f"L{level}"] = int(size[:-1]) * 1024
    return caches
