"""The bits of the outputs of every kind of layer, on every instruction set: whether a change altered any."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import product

import numpy as np

import fastrnn
from bench.cases import random_tensors
from fastrnn.engine.backends import SIMD_TABLES
from fastrnn.errors import message
from fastrnn.spec import RecurrentSpec

KINDS = (("RNN", "tanh"), ("RNN", "relu"), ("GRU", "tanh"), ("LSTM", "tanh"))
# Input and hidden sizes: below, at and above whole vectors and panels, and some of real models.
SIZES = (
    *((1, 1), (1, 8), (3, 16), (5, 7), (16, 17), (40, 31)),
    *((64, 64), (33, 96), (20, 150), (128, 128), (256, 512)),
)
# num_layers, bidirectional, hidden_size / proj_size (0: none), bias, batch_first, threads.
SHAPES = (
    (1, False, 0, True, False, 1),
    (2, False, 0, True, True, 2),
    (1, True, 0, True, False, 2),
    (2, True, 0, False, True, 1),
    (1, False, 3, True, False, 2),
)
# Steps and rows (T, B) of a call.
CALLS = ((1, 1), (9, 1), (30, 1), (5, 2), (7, 5), (11, 9), (6, 33), (3, 70))
LARGE = 256  # from this hidden size on, one layer in one direction is enough
ROW_LAYERS = ("ReLU", "Tanh", "Sigmoid", "Softmax", "LogSoftmax")


def record():
    """Digests of every case, by instruction set and name. Each set runs in a process of its own."""
    result = {}
    for isa in SIMD_TABLES:
        command = [sys.executable, "-c", "from bench.bits import print_digests; print_digests()"]
        ran = subprocess.run(command, env={**os.environ, "FASTRNN_ISA": isa}, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(message("bits", f"the outputs with {isa}", ran.stderr.strip()[-300:]))
        result[isa] = json.loads(ran.stdout)
    return result


def differences(before, after):
    """The cases whose digests differ, as "avx2: LSTM(...", and how many cases the two records share."""
    shared = [(isa, name) for isa in before if isa in after for name in before[isa] if name in after[isa]]
    if not shared:
        raise ValueError(message("bits", "records with a case in common", "none"))
    return [f"{isa}: {name}" for isa, name in shared if before[isa][name] != after[isa][name]], len(shared)


def print_digests():
    """Print the digests for this process's instruction set, as JSON."""
    print(json.dumps({name: _digest(outputs) for name, outputs in cases()}))


def cases():
    """Every case: its name and its outputs."""
    every = product(KINDS, ("float32", "float64"), SIZES, SHAPES)
    for (kind, nonlinearity), precision, (input_size, size), shape in every:
        num_layers, bidirectional, share, bias, batch_first, threads = shape
        is_there = share == 0 or (kind == "LSTM" and share <= size)
        if not is_there or (size >= LARGE and (num_layers > 1 or bidirectional)):
            continue
        proj_size = size // share if share else 0
        spec = RecurrentSpec(kind, input_size, size, num_layers, bidirectional, proj_size, bias, nonlinearity)
        yield from _recurrent_cases(spec, precision, batch_first, threads)
    yield from _row_cases()


def _recurrent_cases(spec, precision, batch_first, threads):
    random = np.random.default_rng(spec.hidden_size)
    tensors = random_tensors(random, spec, precision)
    options = {"batch_first": batch_first, "precision": precision, "threads": threads}
    if spec.kind == "RNN":
        options["nonlinearity"] = spec.nonlinearity
    layer = getattr(fastrnn, spec.kind).from_state_dict(tensors, **options)
    name = f"{layer!r}, {precision}, {threads} threads"
    for T, B in CALLS:
        x = random.standard_normal((B, T, spec.input_size) if batch_first else (T, B, spec.input_size))
        yield f"{name}, {T}x{B}", layer(x)
        yield f"{name}, {T}x{B} ragged", layer(x, lengths=random.integers(1, T + 1, B))
    if not spec.bidirectional:
        x = random.standard_normal((12, spec.input_size))
        stream = layer.stream()
        yield f"{name}, stream", [stream.run(x), *map(stream.step, x), stream.state]
        pool = layer.pool()
        ids = [pool.open() for _ in x]
        chunks = pool.run(ids[:3], [x[:4], x[:2], x[:7]])
        yield f"{name}, pool", [pool.step(ids, x), pool.step(ids[4::-1], x[:5]), *chunks, pool.state(ids[2])]


def _row_cases():
    random = np.random.default_rng(0)
    for precision, width in product(("float32", "float64"), (1, 3, 33, 100, 256)):
        x = 4 * random.standard_normal((3, 7, width)).astype(precision)
        weights = {"weight": random.standard_normal((17, width)), "bias": random.standard_normal(17)}
        norm = {"weight": random.standard_normal(width), "bias": random.standard_normal(width)}
        for kind in ROW_LAYERS:
            yield f"{kind}, {precision}, {width}", [getattr(fastrnn, kind)()(x)]
        linear = fastrnn.Linear.from_state_dict(weights, precision=precision)
        yield f"Linear, {precision}, {width}", [linear(x)]
        norm = fastrnn.LayerNorm.from_state_dict(norm, precision=precision)
        yield f"LayerNorm, {precision}, {width}", [norm(x)]


def _digest(outputs):
    digest = hashlib.sha256()
    for array in _arrays(outputs):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


def _arrays(outputs):
    if isinstance(outputs, (list, tuple)):
        return [array for one in outputs for array in _arrays(one)]
    return [np.asarray(outputs)]
