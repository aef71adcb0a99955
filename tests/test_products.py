"""Matrices that each have products of their own, as weights in several storages do."""

import ctypes

import numpy as np
import pytest
from helpers import CELLS, arrays_of, make_layer, random_layer, random_spec, random_state, random_tensors

from fastrnn.engine import backends
from fastrnn.engine.backends import MATRICES, pick_backend
from fastrnn.engine.packing import PackedCell, pack_dense, pack_recurrent
from fastrnn.operators.recurrent import DIVISIONS, Recurrent

NAME = b"fastrnn.products"
BACKENDS = ("simd", "blas") if backends.ISAS else ("blas",)


class Products(ctypes.Structure):
    """frnn_products of backend.h."""

    _fields_ = (
        ("backend", ctypes.c_void_p),
        ("storage", ctypes.c_int),
        ("group_k", ctypes.c_int),
        ("products_per_ns", ctypes.c_double),
        ("dense_products_per_ns", ctypes.c_double),
        ("near_bytes_per_ns", ctypes.c_double),
        ("far_bytes_per_ns", ctypes.c_double),
        ("functions", ctypes.c_void_p * 7),
    )


_copies = []


def other_products(products, **changed):
    """A copy of a table. At its own address it is another one for all who compare products."""
    get, make = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    copy = Products.from_buffer_copy(ctypes.string_at(get(products, NAME), ctypes.sizeof(Products)))
    for name, value in changed.items():
        setattr(copy, name, value)
    _copies.append(copy)
    return make(ctypes.addressof(copy), NAME, None)


def operator_of(layer, products, threads=1, division=None):
    """The operator of a layer whose matrices are packed by these products."""
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    cells = [
        pack_recurrent(products, layer.shape.cell, *(layer.tensors.get(part + suffix) for part in parts))
        for suffix in layer.shape.suffixes()
    ]
    return Recurrent(cells, layer.shape.directions, threads, division)


@pytest.mark.parametrize("other", range(3))
@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_each_matrix_may_have_its_own_products(rng, cell, backend, bidirectional, other):
    """The bits are those of one table for all, in whole calls, in single steps and in streams."""
    spec = random_spec(cell, 9, 33, 2, bidirectional)
    layers = [make_layer(spec, random_tensors(np.random.default_rng(3), spec), backend=backend) for _ in "ab"]
    products = list(pick_backend("test", backend, np.float32).products)
    products[other] = other_products(products[other])
    layers[1]._use(operator_of(layers[1], tuple(products)))
    for T, B in ((1, 1), (1, 3), (1, 13), (7, 1), (7, 5)):
        x = rng.standard_normal((T, B, 9)).astype(np.float32)
        state = random_state(rng, spec, B, np.float32)
        for lengths in (None, rng.integers(1, T + 1, B)):
            wanted, got = (arrays_of(layer(x, state, lengths=lengths)) for layer in layers)
            for one, all_same in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(one, all_same)
    if not bidirectional:
        streams = [layer.stream() for layer in layers]
        for row in rng.standard_normal((5, 9)).astype(np.float32):
            np.testing.assert_array_equal(*(stream.step(row) for stream in streams))


@pytest.mark.skipif(not backends.ISAS, reason="divided calls of blas agree up to rounding")
@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("cell", ("lstm", "gru"))
def test_divided_calls_may_mix_products(rng, cell, division):
    spec = random_spec(cell, 9, 70, 2, division == "direction")
    layer = make_layer(spec, random_tensors(rng, spec), backend="simd", threads=1)
    inputs = [
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((1, 9, 9), (1, 1, 9), (11, 9, 9), (12, 1, 9))
    ]
    wanted = [layer(x)[0] for x in inputs]
    products = pick_backend("test", "simd", np.float32).products
    layer._use(operator_of(layer, (products[0], other_products(products[1]), products[2]), 2, division))
    for x, y in zip(inputs, wanted, strict=True):
        np.testing.assert_array_equal(layer(x)[0], y)


def test_a_plan_reads_the_rates_of_each_matrix(rng):
    """What takes one thread long is divided, whichever matrix it is that makes it slow."""
    layer = random_layer(rng, "LSTM", 16, 16, precision="float32")
    products = pick_backend("test", "auto", np.float32).products
    fast = tuple(other_products(own, products_per_ns=1000) for own in products)
    assert operator_of(layer, fast).plan(20, 8, False, 2, 150, 1)["division"] == "alone"
    for i in range(2):
        slow = list(fast)
        slow[i] = other_products(products[i], products_per_ns=0.01)
        assert operator_of(layer, tuple(slow)).plan(20, 8, False, 2, 150, 1)["division"] != "alone"


def test_products_of_two_backends_are_refused(rng):
    both = [pick_backend("test", "auto", dtype).products[0] for dtype in (np.float32, np.float64)]
    weight = rng.standard_normal((3, 3))
    with pytest.raises(ValueError, match="PackedCell: expected products of one backend, got several"):
        PackedCell((*both, both[0]), "rnn_tanh", weight, weight, None, np.zeros(3), None)


@pytest.mark.parametrize("dtype", (">f4", np.float64, np.float16))
def test_weights_of_another_dtype_are_converted(rng, dtype):
    products = pick_backend("test", "auto", np.float32).products[0]
    weight = rng.standard_normal((20, 7)).astype(dtype)
    wanted = pack_dense(products, weight.astype(np.float32), None)
    got = pack_dense(products, weight, None)
    if wanted.memory is not None:
        np.testing.assert_array_equal(got.memory, wanted.memory)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_is_picked_for_each_matrix(backend):
    plain = pick_backend("test", backend, np.float32)
    assert len(plain.products) == len(MATRICES) == 3
    same = pick_backend("test", backend, np.float32, storages={"recurrent": "float32"})
    assert same == plain
    known = (
        '"float32", "bfloat16", "int8", "bfloat16x2" and "bfloat16x3"' if backend == "simd" else '"float32"'
    )
    with pytest.raises(ValueError, match=f"test: expected weights stored as one of {known}, got 'int3'"):
        pick_backend("test", backend, np.float32, storages={"recurrent": "int3"})
