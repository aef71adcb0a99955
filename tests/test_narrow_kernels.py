"""Weights in narrow types: how they are packed, and that sums are the same on every instruction set."""

import numpy as np
import pytest
from helpers import CELLS, arrays_of, make_layer, random_spec, random_state, random_tensors

from fastrnn.engine import packing
from fastrnn.engine.backends import MATRICES, pick_backend
from fastrnn.operators.recurrent import DIVISIONS, Recurrent
from fastrnn.operators.stateless import Dense

simd = pytest.importorskip("fastrnn.engine.simd.tables")

STORAGES = ("bfloat16", "bfloat16x2", "bfloat16x3", "int8")
# For sums that are rounded once: multiply-adds of the plain instruction set are rounded twice.
FUSED = [isa for isa in simd.TABLES if isa != "baseline"]
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


@pytest.fixture(params=tuple(simd.TABLES))
def isa(request, monkeypatch):
    """Each instruction set of this processor, picked by FASTRNN_ISA."""
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


def products_of(storage):
    return pick_backend("test", "simd", np.float32, None, dict.fromkeys(MATRICES, storage)).products


def narrow_layer(spec, tensors, storage, threads=1, division=None):
    """A layer whose matrices are all stored in a narrow type."""
    layer = make_layer(spec, tensors)
    cells = [
        packing.pack_recurrent(
            products_of(storage), layer.shape.cell, *(layer.tensors.get(part + suffix) for part in PARTS)
        )
        for suffix in layer.shape.suffixes()
    ]
    layer._use(Recurrent(cells, layer.shape.directions, threads, division))
    return layer


def bfloat16_bits(x):
    """Rounded to the nearest, to even where two are as near."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def int8_weights(weight):
    """Whole numbers and the scale of each row."""
    largest = np.abs(weight).max(axis=1, keepdims=True)
    whole = np.rint(weight * (np.float32(127) / np.where(largest, largest, 1)))
    return whole.astype(np.int8), largest[:, 0] / np.float32(127)


def as_tiles(weight, gates, group, block):
    """(G*H, K) as (panels, K / block, G, 16 groups, 16 units, group), with zeros where there is nothing."""
    units, columns = weight.shape[0] // gates, weight.shape[1]
    panels, blocks = -(-units // 16), -(-columns // block)
    filled = np.zeros((gates, panels * 16, blocks * block), weight.dtype)
    filled[:, :units, :columns] = weight.reshape(gates, units, columns)
    return filled.reshape(gates, panels, 16, blocks, 16, group).transpose(1, 3, 0, 4, 2, 5)


def by_column(rows, gates):
    """(G*H,) in the order of gates: (panels, G, 16)."""
    units = len(rows) // gates
    filled = np.zeros((gates, -(-units // 16) * 16), rows.dtype)
    filled[:, :units] = rows.reshape(gates, units)
    return filled.reshape(gates, -1, 16).swapaxes(0, 1).ravel()


@pytest.mark.parametrize("columns, units", ((1, 1), (31, 15), (64, 16), (65, 33), (130, 40)))
@pytest.mark.parametrize("kind, gates", (("dense", 1), ("rnn_tanh", 1), ("gru", 3), ("lstm", 4)))
@pytest.mark.parametrize("storage", STORAGES)
def test_every_weight_has_its_place_in_a_tile(rng, isa, storage, kind, gates, columns, units):
    weight = rng.standard_normal((gates * units, columns)).astype(np.float32)
    w_hh = None if kind == "dense" else np.zeros((gates * units, units), np.float32)
    bias_hn = np.zeros(units) if kind == "gru" else None
    cell = packing.PackedCell(
        products_of(storage), kind, weight, w_hh, None, np.zeros(gates * units), bias_hn
    )
    if storage != "int8":
        parts, left = [], weight
        for _ in range(int(storage[len("bfloat16x") :] or 1)):
            parts.append(bfloat16_bits(left))
            left = left - (parts[-1].astype(np.uint32) << 16).view(np.float32)
        tiles = [as_tiles(part, gates, 2, 32) for part in parts]
        wanted = [np.stack(tiles, axis=3)]
    else:
        whole, scales = int8_weights(weight)
        sums = whole.sum(axis=1, dtype=np.int32)
        wanted = [as_tiles(whole, gates, 4, 64), by_column(scales, gates), by_column(sums, gates)]
    place = 0
    for part in wanted:
        got = cell.memory[place : place + part.nbytes].view(part.dtype)
        np.testing.assert_array_equal(got, part.ravel())
        place += -(-part.nbytes // 64) * 64


@pytest.mark.parametrize("storage", STORAGES)
def test_sums_are_the_same_on_every_instruction_set(rng, storage, monkeypatch):
    """Bit by bit, for rows of all magnitudes, and for any number of them."""
    for columns, units in ((1, 1), (5, 17), (32, 16), (64, 64), (100, 130), (300, 33)):
        weight = rng.standard_normal((units, columns)).astype(np.float32)
        weight[0] = 0
        x = (rng.standard_normal((70, columns)) * 10.0 ** rng.integers(-30, 30, (70, 1))).astype(np.float32)
        x[3] = 0
        results = {}
        for isa in FUSED:
            monkeypatch.setenv("FASTRNN_ISA", isa)
            dense = Dense(packing.pack_dense(products_of(storage)[0], weight, np.linspace(-1, 1, units)))
            for n in (1, 2, 3, 7, 16, 17, 31, 33, 48, 64, 65, 70):
                y = np.full((n, 1, units), np.nan, np.float32)
                dense.apply(x[:n, None], y)
                results[isa, n] = y[:, 0]
        whole = results[FUSED[0], 70]
        for (isa, n), y in results.items():
            np.testing.assert_array_equal(y.view(np.uint32), whole[:n].view(np.uint32), err_msg=f"{isa}, {n}")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("cell", CELLS)
def test_rows_do_not_depend_on_their_batch(rng, isa, cell, storage):
    """Nor on how steps are cut into calls, nor on threads. Also from states far beyond 1."""
    for inputs, units in ((5, 7), (33, 40), (70, 130)):
        spec = random_spec(cell, inputs, units, 2, False)
        tensors = random_tensors(rng, spec, np.float32)
        layer = narrow_layer(spec, tensors, storage)
        x = rng.standard_normal((5, 37, inputs)).astype(np.float32)
        state = random_state(rng, spec, 37, np.float32)
        state = tuple(3 * part for part in state) if isinstance(state, tuple) else 3 * state
        wanted = arrays_of(layer(x, state))
        halves = layer(x[2:], layer(x[:2], state)[1])
        np.testing.assert_array_equal(arrays_of(halves)[0], wanted[0][2:])
        for b in (0, 17, 36):
            alone = layer(x[:, b : b + 1], take(state, b))
            for one, all_rows in zip(arrays_of(alone), wanted, strict=True):
                np.testing.assert_array_equal(one[:, 0], all_rows[:, b])
        for division in DIVISIONS:
            shared = narrow_layer(spec, tensors, storage, 2, division)
            for one, other in zip(arrays_of(shared(x, state)), wanted, strict=True):
                np.testing.assert_array_equal(one, other)


def take(state, b):
    """The state of one row."""
    return tuple(part[:, b : b + 1] for part in state) if isinstance(state, tuple) else state[:, b : b + 1]


@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
def test_no_number_in_a_row_of_int8_gives_nan(rng, isa, value):
    """Such a row has no scale; the others do not notice."""
    weight = rng.standard_normal((20, 30)).astype(np.float32)
    dense = Dense(packing.pack_dense(products_of("int8")[0], weight, np.zeros(20)))
    x = rng.standard_normal((9, 1, 30)).astype(np.float32)
    y, changed = np.empty((2, 9, 1, 20), np.float32)
    dense.apply(x, y)
    x[4, 0, 7] = value
    dense.apply(x, changed)
    assert np.isnan(changed[4]).all()
    np.testing.assert_array_equal(np.delete(changed, 4, 0), np.delete(y, 4, 0))


@pytest.mark.parametrize("storage, largest", (("bfloat16", 6e-5), ("int8", 6e-5), ("bfloat16x3", 3e-7)))
@pytest.mark.parametrize("kind", ("tanh", "sigmoid"))
def test_gates_are_as_exact_as_products(isa, storage, largest, kind):
    """Over all magnitudes; tanh of 0 is 0. Biases give them their arguments."""
    x = np.concatenate(
        [np.linspace(-12, 12, 401), np.geomspace(1e-30, 1e30, 61), -np.geomspace(1e-30, 1e30, 61)]
    )
    x = x.astype(np.float32)
    units = len(x)
    if kind == "tanh":
        tensors = {
            "weight_ih_l0": np.zeros((units, 1)),
            "weight_hh_l0": np.zeros((units, units)),
            "bias_ih_l0": x,
        }
        spec, wanted = random_spec("rnn_tanh", 1, units), np.tanh(x.astype(np.float64))
    else:
        # c = sigmoid(f) * 1 + sigmoid(i) * tanh(0)
        bias = np.concatenate([np.zeros(units), x, np.zeros(2 * units)])
        tensors = {"weight_ih_l0": np.zeros((4 * units, 1)), "weight_hh_l0": np.zeros((4 * units, units))}
        tensors["bias_ih_l0"] = bias
        with np.errstate(over="ignore"):
            spec, wanted = random_spec("lstm", 1, units), 1 / (1 + np.exp(-x.astype(np.float64)))
    tensors["bias_hh_l0"] = np.zeros_like(tensors["bias_ih_l0"])
    layer = narrow_layer(spec, tensors, storage)
    state = np.zeros((1, 1, units), np.float32)
    _, after = layer(np.zeros((1, 1, 1), np.float32), state if kind == "tanh" else (state, state + 1))
    got = arrays_of(after)[-1].ravel()
    assert np.abs(got - wanted).max() <= largest
    if kind == "tanh":
        assert not got[x == 0].any()
