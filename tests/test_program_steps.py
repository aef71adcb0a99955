"""Steps that multiply, move windows and take rows by their number, on every instruction set of this
processor."""

import math

import numpy as np
import pytest

array_tables = pytest.importorskip("fastrnn.engine.simd.array_tables")
tables = pytest.importorskip("fastrnn.engine.simd.tables")

from fastrnn.engine.packing import pack_dense  # noqa: E402  (after importorskip)
from fastrnn.program import product_steps as products  # noqa: E402
from fastrnn.program import steps  # noqa: E402
from fastrnn.program import window_steps as windows  # noqa: E402

ISAS = tuple(array_tables.ARRAY_TABLES)
FLOATS = ("float32", "float64")
GUARD = 24


@pytest.fixture(params=ISAS)
def isa(request):
    return request.param


@pytest.fixture(params=FLOATS)
def dtype(request):
    return request.param


def kernels_of(isa, dtype):
    return array_tables.ARRAY_TABLES[isa][dtype]


def products_of(isa, dtype):
    return tables.PRODUCTS[isa][dtype, dtype]


class Guarded:
    """An array for outputs, full of NaN, within memory that has guard words at both ends."""

    def __init__(self, shape, dtype):
        size = math.prod(shape)
        self.memory = np.full(size + 2 * GUARD, 99, dtype)
        self.array = self.memory[GUARD : GUARD + size].reshape(shape)
        self.array[...] = np.nan if np.dtype(dtype).kind == "f" else 7

    def check(self):
        guard = np.full(GUARD, 99, self.memory.dtype)
        assert (self.memory[:GUARD] == guard).all() and (self.memory[-GUARD:] == guard).all()
        return self.array


def close(got, wanted, dtype):
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(got, wanted, tolerance, tolerance * max(1, np.abs(wanted).max(initial=0)))


# ---------------------------------------------------------------- products


def test_dense_rows_may_overlap(rng, isa, dtype):
    x = rng.standard_normal((3, 50)).astype(dtype)
    weight, bias = rng.standard_normal((7, 12)), rng.standard_normal(7)
    packed = pack_dense(products_of(isa, dtype), weight, bias)
    out = Guarded((3, 10, 7), dtype)
    step = products.DenseStep(packed, 10, 4, 7, 3, x.strides[0], out.array.strides[0])
    step.run(x, out.array)
    rows = np.stack([x[:, 4 * i : 4 * i + 12] for i in range(10)], 1)
    close(out.check(), rows @ weight.T + bias, dtype)


def matmul(isa, dtype, a, b):
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    m, K, n = *a.shape[-2:], b.shape[-1]
    a, b = np.broadcast_to(a, (*batch, m, K)), np.broadcast_to(b, (*batch, K, n))
    out = Guarded((*batch, m, n), dtype)
    step = products.MatmulStep(
        kernels_of(isa, dtype), batch, m, n, K, a.strides, b.strides, out.array.strides
    )
    step.run(a, b, out.array)
    return out.check()


def test_products_of_two_arrays(rng, isa, dtype):
    for m in (*range(1, 15), 30, 67):
        for n in (1, 2, 3, 7, 8, 16, 31, 33, 67):
            K = int(rng.integers(1, 70))
            a = rng.standard_normal((m, K)).astype(dtype)
            b = rng.standard_normal((K, n)).astype(dtype)
            close(matmul(isa, dtype, a, b), a @ b, dtype)
            close(matmul(isa, dtype, a, b.T.copy().T), a @ b, dtype)
            close(matmul(isa, dtype, a.T.copy().T, b), a @ b, dtype)


def test_products_of_batches_and_long_sums(rng, isa, dtype):
    a = rng.standard_normal((2, 1, 3, 5, 700)).astype(dtype)
    b = rng.standard_normal((4, 1, 700, 21)).astype(dtype)
    close(matmul(isa, dtype, a, b), a @ b, dtype)
    assert (matmul(isa, dtype, a[..., :0], b[..., :0, :]) == 0).all()
    assert matmul(isa, dtype, a[:0], b).shape == (0, 4, 3, 5, 21)


def test_bits_of_a_product_depend_on_its_row_and_column_alone(rng, isa, dtype):
    a = rng.standard_normal((67, 300)).astype(dtype)
    b = rng.standard_normal((300, 70)).astype(dtype)
    whole = matmul(isa, dtype, a, b)
    for m in (1, 2, 5, 13):
        np.testing.assert_array_equal(matmul(isa, dtype, a[:m], b), whole[:m])
    np.testing.assert_array_equal(matmul(isa, dtype, a, b[:, 3:20]), whole[:, 3:20])
    np.testing.assert_array_equal(matmul(isa, dtype, a, b.T.copy().T), whole)


# ---------------------------------------------------------------- convolutions

ONE_AXIS = [
    # batch, in, out, positions, taps, stride, dilation, padding, groups
    (1, 1, 5, 40, 9, 1, 1, 0, 1),
    (2, 3, 7, 30, 5, 2, 1, 0, 1),
    (2, 4, 6, 31, 3, 1, 1, 1, 1),
    (3, 4, 6, 20, 5, 3, 1, 4, 1),
    (1, 4, 8, 25, 3, 1, 4, 4, 1),
    (2, 6, 4, 20, 3, 2, 2, 3, 2),
    (1, 5, 5, 12, 1, 1, 1, 0, 1),
    (2, 4, 4, 12, 1, 2, 1, 0, 1),
    (2, 4, 4, 12, 1, 1, 1, 2, 2),
    (1, 2, 3, 3, 3, 1, 1, 5, 1),
    (2, 19, 19, 17, 3, 1, 1, 1, 19),
    (1, 70, 70, 9, 5, 2, 2, 4, 70),
    (2, 3, 6, 17, 3, 1, 1, 1, 3),
]
TWO_AXES = [
    (1, 1, 4, (9, 11), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 3, 5, (8, 7), (3, 2), (2, 1), (1, 2), (0, 1), 1),
    (2, 4, 6, (6, 5), (1, 1), (1, 1), (1, 1), (0, 0), 1),
    (1, 4, 6, (6, 5), (1, 3), (1, 1), (1, 1), (0, 0), 1),
    (1, 4, 6, (6, 9), (1, 3), (2, 2), (1, 1), (2, 1), 2),
    (1, 2, 3, (40, 40), (5, 5), (1, 1), (1, 1), (2, 2), 1),
    (2, 20, 20, (7, 6), (3, 3), (1, 2), (2, 1), (2, 1), 20),
]


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def convolve(isa, dtype, x, weights, output):
    """x (batch, positions..., in) by a step."""
    out = Guarded((x.shape[0], *output, weights.channels_out), dtype)
    step = windows.ConvolutionStep(
        kernels_of(isa, dtype),
        weights,
        x.shape[0],
        x.shape[1:-1],
        output,
        x.strides[:-1],
        out.array.strides[:-1],
    )
    step.run(x, out.array)
    return out.check()


def tuples(case):
    batch, channels_in, channels_out, *rest, groups = case
    return batch, channels_in, channels_out, *[n if isinstance(n, tuple) else (n,) for n in rest], groups


@pytest.mark.parametrize("case", ONE_AXIS + TWO_AXES, ids=str)
def test_convolutions_are_torchs(rng, isa, dtype, case):
    torch = pytest.importorskip("torch")
    batch, channels_in, channels_out, size, taps, stride, dilation, padding, groups = tuples(case)
    x = rng.standard_normal((batch, channels_in, *size)).astype(dtype)
    weight = rng.standard_normal((channels_out, channels_in // groups, *taps)).astype(dtype)
    function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[len(size) - 1]
    for bias in (None, rng.standard_normal(channels_out).astype(dtype)):
        wanted = function(
            *(None if array is None else torch.from_numpy(array).double() for array in (x, weight, bias)),
            stride,
            padding,
            dilation,
            groups,
        ).numpy()
        weights = windows.ConvolutionWeights(
            products_of(isa, dtype), weight, bias, groups, stride, dilation, padding
        )
        got = convolve(isa, dtype, channels_last(x), weights, wanted.shape[2:])
        close(got, channels_last(wanted), dtype)


@pytest.mark.parametrize(
    "case",
    [
        (1, 3, 5, 10, 4, 2, 1, 1, 1),
        (2, 4, 6, 9, 3, 1, 1, 0, 1),
        (2, 4, 6, 9, 3, 1, 2, 2, 2),
        (1, 3, 2, 7, 5, 3, 2, 1, 1),
        (2, 3, 2, 7, 2, 4, 1, 0, 1),
        (1, 20, 20, 8, 4, 2, 1, 1, 20),
        (1, 1, 1, 8, 16, 8, 1, 4, 1),
        (1, 3, 5, (6, 5), (3, 4), (2, 2), (1, 1), (1, 1), 1),
        (2, 4, 2, (5, 4), (2, 3), (3, 1), (1, 2), (0, 1), 2),
    ],
    ids=str,
)
def test_transposed_convolutions_are_torchs(rng, isa, dtype, case):
    torch = pytest.importorskip("torch")
    batch, channels_in, channels_out, size, taps, stride, dilation, padding, groups = tuples(case)
    x = rng.standard_normal((batch, channels_in, *size)).astype(dtype)
    weight = rng.standard_normal((channels_in, channels_out // groups, *taps)).astype(dtype)
    bias = rng.standard_normal(channels_out).astype(dtype)
    function = (torch.nn.functional.conv_transpose1d, torch.nn.functional.conv_transpose2d)[len(size) - 1]
    for more in {0, max(stride[-1], dilation[-1]) - 1}:
        wanted = function(
            *(torch.from_numpy(array).double() for array in (x, weight, bias)),
            stride,
            padding,
            more,
            groups,
            dilation,
        ).numpy()
        weights = windows.ConvolutionWeights(
            products_of(isa, dtype), weight, bias, groups, stride, dilation, padding, is_transposed=True
        )
        got = convolve(isa, dtype, channels_last(x), weights, wanted.shape[2:])
        close(got, channels_last(wanted), dtype)


def test_a_convolution_takes_arrays_that_lie_apart(rng, isa, dtype):
    """Channels that are a part of wider rows."""
    x = rng.standard_normal((2, 20, 9)).astype(dtype)
    weight = rng.standard_normal((4, 3, 5)).astype(dtype)
    weights = windows.ConvolutionWeights(products_of(isa, dtype), weight, None, padding=(2,))
    part = x[:, ::2, 3:6]
    np.testing.assert_array_equal(
        convolve(isa, dtype, part, weights, (10,)), convolve(isa, dtype, part.copy(), weights, (10,))
    )


def test_bits_of_a_convolution_do_not_depend_on_how_rows_lie(rng, isa, dtype):
    """Rows as they lie, and rows brought together for the padding: the same sums."""
    x = rng.standard_normal((1, 40, 4)).astype(dtype)
    weight = rng.standard_normal((6, 4, 3)).astype(dtype)
    plain = windows.ConvolutionWeights(products_of(isa, dtype), weight, None)
    padded = windows.ConvolutionWeights(products_of(isa, dtype), weight, None, padding=(2,))
    whole = convolve(isa, dtype, x, padded, (40,))
    np.testing.assert_array_equal(whole[:, 2:], convolve(isa, dtype, x, plain, (38,)))
    zeros = np.concatenate([np.zeros((1, 2, 4), dtype), x], 1)
    np.testing.assert_array_equal(whole, convolve(isa, dtype, zeros, plain, (40,)))


# ---------------------------------------------------------------- pools


@pytest.mark.parametrize("channels", (1, 3, 16, 35))
@pytest.mark.parametrize(
    ("size", "taps", "stride", "padding"),
    [((10,), (3,), (2,), (1,)), ((7,), (2,), (2,), (0,)), ((6, 7), (3, 2), (2, 1), (1, 1))],
    ids=str,
)
def test_pools_are_torchs(rng, isa, dtype, size, taps, stride, padding, channels):
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    x = rng.standard_normal((2, channels, *size)).astype(dtype)
    x[0, 0] = np.nan
    x[1, 0] = -np.inf
    axes = len(size)
    last = channels_last(x)
    cases = [
        ("max", (f.max_pool1d, f.max_pool2d)[axes - 1], {}),
        ("average", (f.avg_pool1d, f.avg_pool2d)[axes - 1], {}),
        ("average", (f.avg_pool1d, f.avg_pool2d)[axes - 1], {"count_include_pad": False}),
    ]
    if axes == 2:
        cases.append(("average", f.avg_pool2d, {"divisor_override": 5}))
    for ceil_mode in (False, True):
        for pooling, function, options in cases:
            wanted = function(
                torch.from_numpy(x), taps, stride, padding, ceil_mode=ceil_mode, **options
            ).numpy()
            out = Guarded((2, *wanted.shape[2:], channels), dtype)
            step = windows.PoolStep(
                kernels_of(isa, dtype),
                pooling,
                2,
                channels,
                size,
                wanted.shape[2:],
                taps,
                stride,
                (1,) * axes,
                padding,
                last.strides[:-1],
                out.array.strides[:-1],
                counts_padding=options.get("count_include_pad", True),
                divisor=options.get("divisor_override", 0),
            )
            step.run(last, out.array)
            np.testing.assert_allclose(out.check(), channels_last(wanted), 1e-6, 1e-6)


# ---------------------------------------------------------------- rows by their number, functions of rows


@pytest.mark.parametrize("index_dtype", ("int32", "int64"))
@pytest.mark.parametrize("kind", ("bool", "int64", "float32", "float64"))
def test_rows_by_their_number(rng, isa, kind, index_dtype):
    table = (rng.standard_normal((11, 6)) * 3).astype(kind)
    index = rng.integers(-11, 11, (4, 5)).astype(index_dtype)
    out = Guarded((4, 5, 6), kind)
    size = table.itemsize
    step = steps.GatherStep(
        kernels_of(isa, "float32"),
        (1, 20, 1),
        11,
        6 * size,
        index_dtype,
        (0, table.strides[0], 0),
        (0, index.itemsize, 0),
        (0, 6 * size, 0),
    )
    step.run(table, index, out.array)
    np.testing.assert_array_equal(out.check(), table[index])
    # torch.gather along axis 1
    index = rng.integers(0, 6, (11, 3)).astype(index_dtype)
    out = Guarded((11, 3), kind)
    step = steps.GatherStep(
        kernels_of(isa, "float32"),
        (11, 3, 1),
        6,
        size,
        index_dtype,
        (*table.strides, 0),
        (*index.strides, 0),
        (*out.array.strides, 0),
    )
    step.run(table, index, out.array)
    np.testing.assert_array_equal(out.check(), np.take_along_axis(table, index, 1))
    # torch.gather along axis 0
    index = rng.integers(0, 11, (4, 6)).astype(index_dtype)
    out = Guarded((4, 6), kind)
    step = steps.GatherStep(
        kernels_of(isa, "float32"),
        (1, 4, 6),
        11,
        size,
        index_dtype,
        (0, *table.strides),
        (0, *index.strides),
        (0, *out.array.strides),
    )
    step.run(table, index, out.array)
    np.testing.assert_array_equal(out.check(), np.take_along_axis(table, index, 0))


def test_an_index_beyond_the_table_reads_within_it(isa):
    table, index = np.arange(5.0), np.array([5, 100, -6, 2**62, -(2**63)])
    out = Guarded((5,), "float64")
    step = steps.GatherStep(
        kernels_of(isa, "float64"), (1, 5, 1), 5, 8, "int64", (0, 8, 0), (0, 8, 0), (0, 8, 0)
    )
    step.run(table, index, out.array)
    np.testing.assert_array_equal(out.check(), [4, 4, 0, 4, 0])


def test_functions_of_rows(rng, isa, dtype):
    x = rng.standard_normal((5, 37)).astype(dtype)
    weight, bias = rng.standard_normal((2, 37)).astype(dtype)
    e = np.exp(x - x.max(1, keepdims=True))
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    for name, wanted, arguments in (
        ("softmax", e / e.sum(1, keepdims=True), ()),
        ("log_softmax", np.log(e / e.sum(1, keepdims=True)), ()),
        ("layer_norm", normal * weight + bias, (weight, bias)),
    ):
        out = Guarded(x.shape, dtype)
        step = steps.RowFunctionStep(tables.TABLES[isa][dtype], name, 5, 37, *arguments)
        step.run(x, out.array)
        close(out.check(), wanted, dtype)


def test_a_step_says_what_it_needs(isa):
    step = steps.GatherStep(
        kernels_of(isa, "float32"), (1, 5, 1), 5, 8, "int64", (0, 8, 0), (0, 8, 0), (0, 8, 0)
    )
    assert step.arrays == 3 and step.scratch_bytes == 0 and step.cost > 0
    with pytest.raises(ValueError, match=r"Step.run: expected 3 arrays, got 1."):
        step.run(np.zeros(3))
    with pytest.raises(ValueError, match=r"GatherStep: expected an index of int32 or int64, got bool."):
        steps.GatherStep(kernels_of(isa, "float32"), (1, 5, 1), 5, 8, "bool", (0, 8, 0), (0, 1, 0), (0, 8, 0))
