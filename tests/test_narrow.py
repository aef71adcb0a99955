"""Narrow weights without kernels: rounding, quantising, and the reference of their products."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from helpers import CELLS, random_spec, random_state, random_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import narrow, reference
from fastrnn.narrow import NarrowWeight, narrowed, quantise, round_to_bfloat16, to_bfloat16, widen
from fastrnn.reference.narrow import GROUP, fma, make_product

LARGEST = np.float32(3.4028235e38)  # of float32


def nearest(exact):
    """A fraction rounded to float32, ties to even; denormal results are zeros."""
    guess = np.float32(float(exact))
    around = (np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf)))
    bits = [int(number.view(np.uint32)) for number in around]
    ranks = [
        (abs(Fraction(float(number)) - exact), bit & 1) for number, bit in zip(around, bits, strict=True)
    ]
    best = around[min(range(3), key=ranks.__getitem__)]
    return best if abs(best) >= np.finfo(np.float32).tiny else np.float32(0)


# ---------------------------------------------------------------- bfloat16


def test_bfloat16_is_the_nearest_of_the_numbers_it_has(rng):
    every = widen("bfloat16", np.arange(0x7F80, dtype=np.uint16))  # those that are positive and finite
    assert np.array_equal(to_bfloat16(every), np.arange(0x7F80)) and every[1] == 2.0**-133
    x = np.abs(rng.integers(0, 0x7F7F0000, 4096, dtype=np.uint32).view(np.float32))
    above = np.searchsorted(every, x)
    low, high = every[above - 1].astype(np.float64), every[above].astype(np.float64)
    got = round_to_bfloat16(x)
    assert np.array_equal(got, np.where(x - low < high - x, low, high))
    assert np.array_equal(round_to_bfloat16(-x), -got)


def test_bfloat16_of_ties_and_of_what_is_no_number():
    pairs = {
        1 + 2**-8: 1.0,  # between 1 and 1 + 2^-7: the last bit of 1 is 0
        1 + 3 * 2**-8: 1 + 2**-6,
        -1 - 2**-8: -1.0,
        LARGEST: np.inf,
        2.0**-149: 0.0,
        0.75 * 2.0**-133: 2.0**-133,
        -np.inf: -np.inf,
    }
    assert np.array_equal(round_to_bfloat16(np.array(list(pairs), np.float32)), list(pairs.values()))
    bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], np.uint32)
    assert np.isnan(round_to_bfloat16(bits.view(np.float32))).all()
    assert str(round_to_bfloat16(np.array([-0.0], np.float32))) == "[-0.]"


def test_bfloat16_is_that_of_torch(rng):
    torch = pytest.importorskip("torch")
    x = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    wanted = torch.from_numpy(x).bfloat16().float().numpy()
    assert np.array_equal(round_to_bfloat16(x), wanted, equal_nan=True)


# ---------------------------------------------------------------- int8


def test_rows_are_quantised_by_their_largest(rng):
    rows = (rng.standard_normal((50, 33)) * 10.0 ** rng.integers(-20, 20, (50, 1))).astype(np.float32)
    numbers, scales = quantise(rows)
    assert numbers.dtype == np.int8 and scales.dtype == np.float32
    assert np.array_equal(np.abs(numbers).max(axis=1), np.full(50, 127))
    assert np.array_equal(scales, np.abs(rows).max(axis=1) / np.float32(127))
    error = np.abs(rows - widen("int8", numbers, scales))
    assert (error <= 0.5001 * scales[:, None]).all()


def test_whole_numbers_are_quantised_exactly(rng):
    numbers = rng.integers(-127, 128, (8, 20)).astype(np.int8)
    numbers[:, 0] = 127
    scales = (2.0 ** rng.integers(-9, 9, 8)).astype(np.float32)
    got, got_scales = quantise(widen("int8", numbers, scales))
    assert np.array_equal(got, numbers) and np.array_equal(got_scales, scales)


@pytest.mark.parametrize("row", ([0, 0], [1e-31, -1e-38], [2.0**-149, 0]))
def test_rows_of_almost_nothing_are_zeros(row):
    numbers, scales = quantise(np.array([row, [1, 2]], np.float32))
    assert not numbers[0].any() and scales[0] == 0 and numbers[1].tolist() == [64, 127]


@pytest.mark.parametrize("wrong", (np.nan, np.inf, -np.inf, 1e300))
def test_rows_that_int8_cannot_hold_are_named(wrong):
    weight = np.ones((4, 3))
    weight[1, 2] = weight[3, 0] = wrong
    with pytest.raises(
        fastrnn.WeightError, match="Linear: expected finite numbers in weight, got NaN or inf"
    ):
        narrowed("Linear", "weight", weight, "int8")
    with pytest.raises(
        fastrnn.WeightError, match=r'in rows 1 and 3\. int8 has neither\. precision="bfloat16"'
    ):
        fastrnn.Embedding.from_state_dict({"weight": weight}, precision="int8")
    assert not np.isfinite(np.asarray(narrowed("Linear", "weight", weight, "bfloat16"))[1, 2])


# ---------------------------------------------------------------- NarrowWeight


@pytest.mark.parametrize("storage", narrow.STORAGES)
def test_narrow_weights_are_arrays_that_nobody_changes(rng, storage):
    array = rng.standard_normal((4, 3)).astype(np.float32)
    weight = narrowed("test", "weight", array, storage)
    assert (weight.shape, weight.ndim, weight.size) == ((4, 3), 2, 12)
    assert weight.nbytes == (24 if storage == "bfloat16" else 12 + 16)
    assert np.abs(weight - array).max() < 0.02 and np.asarray(weight).dtype == np.float32
    assert np.asarray(weight, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        weight.data[0] = 0
    again = pickle.loads(pickle.dumps(weight))
    assert again.storage == storage and np.array_equal(again, weight)
    assert np.array_equal(weight.take(np.array([[2], [0]])), np.asarray(weight)[[[2], [0]]])
    assert narrowed("test", "weight", weight, storage) is weight
    other = next(name for name in narrow.STORAGES if name != storage)
    assert narrowed("test", "weight", weight, other).storage == other
    assert repr(weight) == f"<weights of shape (4, 3) in {storage}>"


@pytest.mark.parametrize(
    "storage, data, scales, words",
    (
        ("bfloat16", np.zeros(3, np.float32), None, "an array of uint16, got float32"),
        ("bfloat16", np.zeros((), np.uint16), None, r"got uint16 of shape \(\)"),
        ("bfloat16", np.zeros(3, np.uint16), np.zeros(3, np.float32), "no scale for each row"),
        ("int8", np.zeros(3, np.int8), None, "a scale for each row"),
        ("int8", np.zeros((3, 2), np.int8), np.zeros(2, np.float32), r"float32 scales of shape \(3,\)"),
        ("int8", np.zeros(3, np.int8), np.zeros(3), r"float32 scales of shape \(3,\), got float64"),
        ("int8", np.zeros(1, np.int8), np.array([np.nan], np.float32), "finite and at least 0"),
        ("int8", np.zeros(1, np.int8), np.array([-1], np.float32), "finite and at least 0"),
        ("int8", np.array([-128], np.int8), np.array([1], np.float32), "from -127 to 127, got -128"),
    ),
)
def test_arrays_that_make_no_narrow_weights_are_refused(storage, data, scales, words):
    with pytest.raises(ValueError, match=words):
        NarrowWeight(storage, data, scales)


# ---------------------------------------------------------------- the reference


@settings(max_examples=300)
@given(st.data())
def test_fma_is_rounded_once(data):
    """Against fractions, also near ties, near cancellation and near the smallest normal number."""
    numbers = st.floats(-(2.0**40), 2.0**40, width=32)
    a, b = (np.float32(data.draw(numbers)) for _ in range(2))
    shift = 2.0 ** data.draw(st.sampled_from((-60, -30, -24, -23, 0, 23, 24, 30)))
    product = np.float32(np.float64(a) * np.float64(b) * shift)
    c = data.draw(st.sampled_from((product, -product, np.float32(1), np.nextafter(-product, np.float32(9)))))
    scale = np.float32(2.0 ** data.draw(st.sampled_from((0, -100))))
    a, c = a * scale, c * scale
    got = fma(*(np.array([number], np.float32) for number in (a, b, c)))[0]
    assert got == nearest(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


def test_results_are_denormal_once_they_are_rounded():
    """2^-126 (1 - 2^-25) lies half way to the next number of 24 bits, and 2^-126 is the even one."""
    tiny = np.finfo(np.float32).tiny
    one = np.ones(3, np.float32)
    below = np.array([1 - 2.0**-24, 1, -1 + 2.0**-24], np.float32)
    assert fma(below, one * tiny, one * 0).tolist() == [0, tiny, 0]
    half = np.float32(2.0**-63)
    a = np.array([2.0**-63 * (1 - 2.0**-12), 2.0**-63 * (1 - 2.0**-23)], np.float32)
    exact = [Fraction(float(x)) * Fraction(float(half)) for x in a]
    assert fma(a, np.array([half, half]), np.zeros(2, np.float32)).tolist() == [nearest(x) for x in exact]


@pytest.mark.parametrize("columns", (1, 2, 31, 32, 33, 70))
def test_products_of_bfloat16_are_summed_in_the_order_of_amx(rng, columns):
    weight = narrowed("test", "weight", rng.standard_normal((3, columns)).astype(np.float32), "bfloat16")
    x = rng.standard_normal((2, columns)).astype(np.float32)
    start = rng.standard_normal(3).astype(np.float32)
    got = make_product(weight, in_order=True)(x, start)
    rounded, wide = round_to_bfloat16(x), np.asarray(weight)
    for b, r in np.ndindex(2, 3):
        total = Fraction(float(start[r]))
        for first in range(0, columns, GROUP):
            chains = [Fraction(0), Fraction(0)]
            for k in range(first, min(first + GROUP, columns)):
                exact = Fraction(float(rounded[b, k])) * Fraction(float(wide[r, k])) + chains[k % 2]
                chains[k % 2] = Fraction(float(nearest(exact)))
            both = Fraction(float(nearest(sum(chains))))
            total = Fraction(float(nearest(total + both)))
        assert got[b, r] == float(total)
    near = make_product(weight)(x, start)
    assert np.abs(near - got).max() < 1e-5


def test_products_of_int8_are_whole_numbers_with_scales(rng):
    weight = narrowed("test", "weight", rng.standard_normal((3, 40)).astype(np.float32), "int8")
    x = rng.standard_normal((4, 40)).astype(np.float32)
    x[1] = 0
    x[2, 3] = np.nan
    start = rng.standard_normal(3).astype(np.float32)
    got = make_product(weight)(x, start)
    assert np.array_equal(got[1], start) and np.isnan(got[2]).all()
    for b in (0, 3):
        largest = np.abs(x[b]).max()
        numbers = np.rint(x[b] * (np.float32(127) / largest)).astype(np.int64)
        sums = (weight.data.astype(np.int64) @ numbers).astype(np.float32)
        factors = largest / np.float32(127) * weight.scales
        assert np.array_equal(got[b], fma(sums, factors, start))


def test_h_of_gates_is_quantised_by_one(rng):
    """A largest magnitude of less than 1 counts as 1."""
    weight = narrowed("test", "weight", np.eye(2, dtype=np.float32), "int8")
    y = make_product(weight)(np.array([[0.25, 0.1]], np.float32), np.zeros(2), 1.0)
    assert np.allclose(y, np.rint([[0.25 * 127, 0.1 * 127]]) / 127, atol=1e-7)


@pytest.mark.parametrize(
    "precision, error",
    (
        (("bfloat16",) * 3, 2e-2),
        (("int8",) * 3, 6e-2),
        (("float32", "int8", "float32"), 6e-2),
        (("bfloat16", "float32", "int8"), 6e-2),
    ),
)
@pytest.mark.parametrize("cell", CELLS)
def test_narrow_cells_are_near_wide_ones(rng, cell, precision, error):
    spec = random_spec(cell, 9, 12, num_layers=2, bidirectional=True)
    tensors = random_tensors(rng, spec, np.float32)
    state = random_state(rng, spec, 3, np.float32)
    state = state if isinstance(state, tuple) else (state, None)
    x = rng.standard_normal((20, 3, 9)).astype(np.float32)
    stored = dict(zip(("weight_ih", "weight_hh", "weight_hr"), precision, strict=True))
    weights = {
        name: narrowed("test", name, array, stored[name[:9]])
        if stored.get(name[:9], "float32") != "float32"
        else array
        for name, array in tensors.items()
    }
    wanted = reference.recurrent_reference(spec, tensors, x, *state, [20, 5, 13])
    for in_order in (False, True):
        got = reference.recurrent_reference(spec, weights, x, *state, [20, 5, 13], in_order)
        for one, other in zip(got, wanted, strict=True):
            if other is not None:
                assert 0 < np.abs(one - other).max() < error * max(1, np.abs(other).max())
                assert np.array_equal(one, one.astype(np.float32))  # states are float32
