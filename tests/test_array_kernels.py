"""Kernels of arrays through their steps: maps and reductions, on every instruction set of this processor.

Against NumPy in a wider type, and against torch where it is there. Outputs are full of NaN before, with
guard words at both ends.
"""

import itertools
import math

import numpy as np
import pytest

tables = pytest.importorskip("fastrnn.engine.simd.array_tables")
steps = pytest.importorskip("fastrnn.program.steps")

from fastrnn.program.map_program import Scalar  # noqa: E402  (after importorskip)

ISAS = tuple(tables.ARRAY_TABLES)
FLOATS = ("float32", "float64")
GUARD = 24


@pytest.fixture(params=ISAS)
def isa(request):
    return request.param


def guarded(shape, dtype, order=None):
    """An array for outputs, full of NaN or of 7, within memory that has guard words at both ends."""
    size = math.prod(shape)
    memory = np.full(size + 2 * GUARD, 99, dtype)
    part = memory[GUARD : GUARD + size]
    part[:] = np.nan if np.dtype(dtype).kind == "f" else 7
    order = range(len(shape)) if order is None else order
    return memory, part.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def check_guards(memory):
    wanted = np.full(GUARD, 99, memory.dtype)
    np.testing.assert_array_equal(memory[:GUARD], wanted)
    np.testing.assert_array_equal(memory[-GUARD:], wanted)


def apply_map(isa, arithmetic, arrays, program, out_dtypes=None, order=None, shape=None):
    """Run a program over arrays that broadcast. Its last values are the outputs, one for each of
    out_dtypes."""
    out_dtypes = out_dtypes or [arithmetic]
    shape = np.broadcast_shapes(*(array.shape for array in arrays)) if shape is None else shape
    inputs = [np.broadcast_to(array, shape) for array in arrays]
    outputs = [guarded(shape, dtype, order) for dtype in out_dtypes]
    first = len(inputs) + len(program) - len(out_dtypes)
    kernels = tables.ARRAY_TABLES[isa][arithmetic if arithmetic in FLOATS else "float32"]
    step = steps.MapStep(
        kernels,
        arithmetic,
        shape,
        [(array.dtype.name, array.strides) for array in inputs],
        program,
        [(out.dtype.name, out.strides, first + i) for i, (_, out) in enumerate(outputs)],
    )
    step.run(*inputs, *(out for _, out in outputs))
    for memory, _ in outputs:
        check_guards(memory)
    results = [out for _, out in outputs]
    return results[0] if len(results) == 1 else results


def apply_one(isa, name, *arrays, parameters=(), out_dtype=None):
    arithmetic = arrays[0].dtype.name
    program = [(name, range(len(arrays)), parameters)]
    return apply_map(isa, arithmetic, arrays, program, [out_dtype or arithmetic])


def ulps(got, wanted, dtype):
    """Units in the last place, where what is wanted is a normal number; results below it are about 0."""
    tiny, largest = np.finfo(dtype).tiny, np.finfo(dtype).max
    normal = (np.abs(wanted) >= tiny) & (np.abs(wanted) <= largest)
    errors = np.abs(got[normal] - wanted[normal]) / np.spacing(np.abs(wanted[normal]).astype(dtype))
    assert (np.abs(got[np.abs(wanted) < tiny]) <= tiny).all()
    return errors.max(initial=0)


def exact(name, x):
    """In the widest type that NumPy has; erf by the C library."""
    if name == "erf":
        return np.array([math.erf(v) for v in x.tolist()])
    if name == "gelu":
        return np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    x = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        return {
            "exp": np.exp,
            "expm1": np.expm1,
            "log": np.log,
            "log1p": np.log1p,
            "tanh": np.tanh,
            "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
            "silu": lambda x: x / (1 + np.exp(-x)),
            "gelu_tanh": lambda x: (
                x / (1 + np.exp(-2 * np.sqrt(2 / np.longdouble(np.pi)) * (x + 0.044715 * x**3)))
            ),
            "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
            "softplus": lambda x: np.log1p(np.exp(x)),
            "logsigmoid": lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))),
            "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
            "sqrt": np.sqrt,
            "rsqrt": lambda x: 1 / np.sqrt(x),
            "reciprocal": lambda x: 1 / x,
        }[name](x)


# The largest errors, in units in the last place: float32, float64.
ERRORS = {
    "exp": (2, 2),
    "expm1": (4, 4),
    "log": (2, 2),
    "log1p": (4, 4),
    "tanh": (4, 4),
    "sigmoid": (4, 4),
    "silu": (4, 4),
    "mish": (8, 8),
    "softplus": (4, 4),
    "logsigmoid": (4, 4),
    "elu": (4, 4),
    "erf": (4, 4),
    "sqrt": (0.5, 0.5),
    "rsqrt": (1.5, 1.5),
    "reciprocal": (0.5, 0.5),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ERRORS)
def test_functions_are_exact_to_a_few_ulp(rng, isa, name, dtype):
    signs = rng.choice([-1, 1], 30_000)
    x = np.concatenate(
        [
            np.linspace(-110, 110, 60_001),
            np.linspace(-2, 2, 40_001),
            signs * np.exp(rng.uniform(np.log(np.finfo(dtype).tiny), np.log(1e30), 30_000)),
        ]
    ).astype(dtype)
    if name in ("log", "sqrt", "rsqrt"):
        x = np.abs(x[x != 0])
    elif name == "log1p":
        x = np.abs(x)
    elif name == "reciprocal":
        x = x[x != 0]
    elif name in ("softplus", "mish"):
        x = x[x < 20]
    if name in ("silu", "mish"):  # where exp(x) is a normal number
        x = x[x > (-87 if dtype == "float32" else -700)]
    wanted = exact(name, x)
    assert ulps(apply_one(isa, name, x), wanted, dtype) <= ERRORS[name][dtype == "float64"] + 0.01


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ("gelu", "gelu_tanh"))
def test_gelu_is_exact_to_a_few_ulp(isa, name, dtype):
    """Far below 0 the square of x, which is rounded, is an exponent."""
    x = np.linspace(-6, 12, 100_001).astype(dtype)
    near = np.abs(x) < 2
    assert ulps(apply_one(isa, name, x)[near], exact(name, x)[near], dtype) <= 16
    assert ulps(apply_one(isa, name, x), exact(name, x), dtype) <= 80


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -3.0, 7.0, 100.0, -100.0, 1e30, -1e30]
SPECIAL += [np.inf, -np.inf, np.nan]


def torch_unary():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    return {
        **{
            name: getattr(torch, name)
            for name in (
                "neg abs sign reciprocal square sqrt rsqrt exp expm1 log log2 log10 log1p exp2 sin cos tan "
                "asin acos atan sinh cosh tanh erf sigmoid relu floor ceil trunc round frac logical_not "
                "isnan isinf isfinite"
            ).split()
        },
        "gelu": f.gelu,
        "gelu_tanh": lambda x: f.gelu(x, approximate="tanh"),
        "silu": f.silu,
        "mish": f.mish,
        "hardsigmoid": f.hardsigmoid,
        "hardswish": f.hardswish,
        "softsign": f.softsign,
        "logsigmoid": f.logsigmoid,
        "tanhshrink": f.tanhshrink,
        "elu": f.elu,
        "leaky_relu": f.leaky_relu,
        "softplus": f.softplus,
        "softshrink": f.softshrink,
        "hardshrink": f.hardshrink,
        "relu6": f.relu6,
        "selu": f.selu,
        "copy": lambda x: x,
    }


@pytest.mark.parametrize("dtype", FLOATS)
def test_unary_operations_are_torchs(rng, isa, dtype):
    torch = pytest.importorskip("torch")
    x = np.concatenate([SPECIAL, 3 * rng.standard_normal(300)]).astype(dtype)
    for name, function in torch_unary().items():
        wanted = function(torch.from_numpy(x)).numpy()
        got = apply_one(isa, name, x, out_dtype=wanted.dtype.name)
        rtol = 2e-5 if dtype == "float32" else 1e-12
        if name in (
            "gelu",
            "gelu_tanh",
        ):  # torch's own cancel far below 0, and gelu of infinity is NaN in float32
            got, wanted = got[~np.isinf(x)], wanted[~np.isinf(x)]
            np.testing.assert_allclose(got, wanted, rtol, 1e-6 if dtype == "float32" else 1e-14, err_msg=name)
        elif wanted.dtype == bool or name in (
            "floor",
            "ceil",
            "trunc",
            "round",
            "sign",
            "neg",
            "abs",
            "copy",
        ):
            np.testing.assert_array_equal(got, wanted, err_msg=name)
            if wanted.dtype != bool:
                numbers = ~np.isnan(wanted)
                np.testing.assert_array_equal(
                    np.signbit(got)[numbers], np.signbit(wanted)[numbers], err_msg=name
                )
        else:
            tiny = 2 * np.finfo(dtype).eps if name == "tanhshrink" else np.finfo(dtype).tiny
            np.testing.assert_allclose(got, wanted, rtol, tiny, err_msg=name)


def torch_binary():
    torch = pytest.importorskip("torch")
    names = (
        "add sub mul div pow atan2 maximum minimum fmod remainder floor_divide eq ne lt le gt ge "
        "logical_and logical_or logical_xor"
    )
    return {name: getattr(torch, name) for name in names.split()}


@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_operations_are_torchs(rng, isa, dtype):
    """Every special value with every other."""
    torch = pytest.importorskip("torch")
    a, b = np.array(list(itertools.product(SPECIAL, SPECIAL)), dtype).T.copy()
    more = rng.standard_normal((2, 200)).astype(dtype)
    a, b = np.concatenate([a, more[0]]), np.concatenate([b, more[1]])
    for name, function in torch_binary().items():
        wanted = function(torch.from_numpy(a), torch.from_numpy(b)).numpy()
        got = apply_one(isa, name, a, b, out_dtype=wanted.dtype.name)
        np.testing.assert_allclose(got, wanted, 1e-6 if dtype == "float32" else 1e-14, err_msg=name)
    for name, parameters in (("clamp", (-0.5, 0.75)), ("threshold", (0.1, 9.0)), ("hardshrink", (0.3,))):
        function = {
            "clamp": torch.clamp,
            "threshold": torch.nn.functional.threshold,
            "hardshrink": torch.nn.functional.hardshrink,
        }[name]
        wanted = function(torch.from_numpy(a), *parameters).numpy()
        np.testing.assert_array_equal(apply_one(isa, name, a, parameters=parameters), wanted, err_msg=name)
    c = np.roll(b, 7)
    three = [torch.from_numpy(part) for part in (a, b, c)]
    with np.errstate(invalid="ignore"):
        wanted = np.where(a != 0, b, c)
    np.testing.assert_array_equal(apply_one(isa, "where", a, b, c), wanted)
    for name in ("addcmul", "addcdiv"):
        wanted = getattr(torch, name)(*three, value=0.5).numpy()
        got = apply_one(isa, name, a, b, c, parameters=(0.5,))
        finite = np.isfinite(wanted) & np.isfinite(got)
        np.testing.assert_allclose(got[finite], wanted[finite], 2e-5, 1e-5, err_msg=name)
    np.testing.assert_allclose(
        apply_one(isa, "lerp", *(part[-200:] for part in (a, b, c))),
        torch.lerp(*(part[-200:] for part in three)).numpy(),
        1e-4,
        1e-6,
    )


def test_powers_of_a_number_are_torchs(rng, isa):
    torch = pytest.importorskip("torch")
    x = np.concatenate([SPECIAL, rng.standard_normal(50)]).astype(np.float32)
    for power in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0):
        got = apply_map(isa, "float32", [x], [("pow", (0, Scalar(power)), ())])
        np.testing.assert_allclose(
            got, torch.pow(torch.from_numpy(x), power).numpy(), 1e-6, err_msg=str(power)
        )


def test_whole_numbers_are_torchs(rng, isa):
    torch = pytest.importorskip("torch")
    a = rng.integers(-20, 20, 200)
    b = np.where(np.arange(200) % 2, rng.integers(1, 9, 200), rng.integers(-9, 0, 200))
    a[:4] = [2**63 - 1, -(2**63), -(2**63), 0]
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    for (
        name
    ) in "add sub mul maximum minimum remainder fmod floor_divide bitwise_and bitwise_or bitwise_xor".split():
        np.testing.assert_array_equal(apply_one(isa, name, a, b), getattr(torch, name)(x, y), err_msg=name)
    for name in "eq ne lt le gt ge logical_and logical_or logical_xor".split():
        got = apply_one(isa, name, a, b, out_dtype="bool")
        np.testing.assert_array_equal(got, getattr(torch, name)(x, y), err_msg=name)
    for name in "neg abs sign square bitwise_not logical_not".split():
        np.testing.assert_array_equal(apply_one(isa, name, a), getattr(torch, name)(x), err_msg=name)
    np.testing.assert_array_equal(
        apply_one(isa, "trunc_divide", a, b), torch.div(x, y, rounding_mode="trunc")
    )
    np.testing.assert_array_equal(apply_one(isa, "pow", a, np.abs(b)), torch.pow(x, y.abs()))
    np.testing.assert_array_equal(apply_one(isa, "where", a, b, a), np.where(a != 0, b, a))
    np.testing.assert_array_equal(apply_one(isa, "clamp", a, parameters=(-3, np.inf)), np.maximum(a, -3))
    np.testing.assert_array_equal(apply_one(isa, "floor_divide", a, 0 * a), 0 * a)
    assert apply_map(isa, "int64", [a[:1]], [("add", (0, Scalar(-(2**62) - 1)), ())])[0] == 2**62 - 2


# ---------------------------------------------------------------- where operands lie


@pytest.mark.parametrize("dtype", FLOATS)
def test_lengths_and_offsets(rng, isa, dtype):
    """Every length around a vector and a tile, at every offset; in place too."""
    x, y = rng.standard_normal((2, 600)).astype(dtype)
    program = [("mul", (0, 1), ()), ("add", (2, Scalar(0.5)), ()), ("tanh", (3,), ())]
    wanted = apply_map(isa, dtype, [x, y], program)
    for n in (*range(1, 68), 255, 256, 257, 511, 513):
        for offset in (0, 1, 3):
            part = slice(offset, offset + n)
            got = apply_map(isa, dtype, [x[part], y[part]], program)
            np.testing.assert_array_equal(got, wanted[part])
    memory = np.full(600, 99, dtype)
    part = memory[5:300]
    part[:] = x[5:300]
    step = steps.MapStep(
        tables.ARRAY_TABLES[isa][dtype],
        dtype,
        part.shape,
        [(dtype, part.strides), (dtype, part.strides)],
        program,
        [(dtype, part.strides, 4)],
    )
    step.run(part, y[5:300], part)
    np.testing.assert_array_equal(part, wanted[5:300])
    assert (memory[:5] == 99).all() and (memory[300:] == 99).all()


def layouts(rng, shape, dtype):
    """Arrays that broadcast to a shape and lie in all ways: turned, apart, backwards, with axes of one."""
    n = len(shape)
    for axes in itertools.islice(itertools.permutations(range(n)), 6):
        whole = rng.standard_normal([shape[axis] for axis in axes]).astype(dtype)
        yield whole.transpose(np.argsort(axes))
    for ones in itertools.product((False, True), repeat=n):
        part = [1 if is_one else size for is_one, size in zip(ones, shape, strict=True)]
        yield rng.standard_normal(part).astype(dtype)
    yield rng.standard_normal([2 * size for size in shape]).astype(dtype)[(slice(None, None, 2),) * n]
    yield rng.standard_normal(shape).astype(dtype)[(slice(None, None, -1),) * n]


@pytest.mark.parametrize("shape", [(7,), (5, 3), (33, 70), (300, 2), (2, 3, 5), (3, 40, 17), (2, 3, 2, 5)])
def test_operands_that_lie_in_any_way(rng, isa, shape):
    one = rng.standard_normal(shape).astype(np.float32)
    for other in layouts(rng, shape, np.float32):
        for order in (None, range(len(shape))[::-1]):
            got = apply_map(isa, "float32", [one, other], [("sub", (0, 1), ())], order=order)
            np.testing.assert_array_equal(got, one - other)
            got = apply_map(isa, "float32", [other], [("copy", (0,), ())], order=order, shape=shape)
            np.testing.assert_array_equal(got, np.broadcast_to(other, shape))


@pytest.mark.parametrize("arithmetic", ("float32", "float64", "int64"))
def test_types_are_converted(rng, isa, arithmetic):
    shape = (5, 37)
    for dtype in ("bool", "int32", "int64", "float32", "float64"):
        x = (rng.standard_normal(shape) * 9).astype(dtype)
        for turned in (False, True):
            part = x.T if turned else x
            np.testing.assert_array_equal(
                apply_map(isa, arithmetic, [part], [("copy", (0,), ())]), part.astype(arithmetic)
            )
        y = (rng.standard_normal(shape) * 9).astype(arithmetic)
        for order in (None, (1, 0)):
            got = apply_map(isa, arithmetic, [y], [("copy", (0,), ())], [dtype], order)
            np.testing.assert_array_equal(got, y.astype(dtype))


def test_six_axes(rng, isa):
    x = rng.standard_normal((2, 3, 2, 3, 2, 3)).astype(np.float32)
    y = x.transpose(5, 3, 1, 4, 2, 0).copy().transpose(5, 2, 4, 1, 3, 0)
    assert y.shape == x.shape
    np.testing.assert_array_equal(apply_map(isa, "float32", [x, y], [("add", (0, 1), ())]), x + y)


def test_a_long_chain_with_several_outputs(rng, isa):
    """More values than registers: places are used again, and outputs may lie where inputs lie."""
    x, y = rng.standard_normal((2, 9, 130)).astype(np.float32)
    program, wanted = [], [x, y]
    for i in range(30):
        name, a, b = ("add", "sub", "mul")[i % 3], i // 2, i + 1
        program.append((name, (a, b), ()))
        f = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[name]
        wanted.append(f(wanted[a], wanted[b]))
    got = apply_map(isa, "float32", [x, y], program, ["float32", "float64", "bool"])
    for result, value in zip(got, wanted[-3:], strict=True):
        np.testing.assert_array_equal(result, value.astype(result.dtype))


def test_an_output_may_lie_where_an_input_lies_that_is_read_later(rng, isa):
    x, y = rng.standard_normal((2, 700)).astype(np.float32)
    inputs = [("float32", x.strides)] * 2
    program = [("add", (0, 1), ()), ("mul", (2, 0), ())]
    outputs = [("float32", x.strides, 2), ("float32", x.strides, 3), ("float32", x.strides, 0)]
    step = steps.MapStep(tables.ARRAY_TABLES[isa]["float32"], "float32", x.shape, inputs, program, outputs)
    memory, product, copy = x.copy(), np.empty_like(x), np.empty_like(x)
    step.run(memory, y, memory, product, copy)
    np.testing.assert_array_equal(memory, x + y)
    np.testing.assert_array_equal(product, (x + y) * x)
    np.testing.assert_array_equal(copy, x)


def test_empty_maps(isa):
    for shape in ((0,), (3, 0), (0, 3), (2, 0, 3)):
        apply_map(isa, "float32", [np.zeros(shape, np.float32)], [("neg", (0,), ())])


# ---------------------------------------------------------------- reductions


def apply_reduce(isa, name, x, axes, arithmetic=None, out_dtype=None, correction=1):
    arithmetic = arithmetic or x.dtype.name
    out_dtype = out_dtype or ("int64" if name.startswith("arg") else arithmetic)
    memory, out = guarded([size for axis, size in enumerate(x.shape) if axis not in axes], out_dtype)
    kernels = tables.ARRAY_TABLES[isa][arithmetic if arithmetic in FLOATS else "float32"]
    step = steps.ReduceStep(
        kernels, name, arithmetic, x.shape, x.strides, x.dtype.name, axes, out.strides, out_dtype, correction
    )
    step.run(x, out)
    check_guards(memory)
    return out


EXACT_SUMS = {
    "sum": np.sum,
    "mean": np.mean,
    "sum_squares": lambda x, axis: np.sum(np.square(x), axis=axis),
    "sum_abs": lambda x, axis: np.sum(np.abs(x), axis=axis),
    "var": lambda x, axis: np.var(x, axis=axis, ddof=1),
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
}


@pytest.mark.parametrize("dtype", FLOATS)
def test_reductions_over_any_axes(rng, isa, dtype):
    for shape in ((1,), (9,), (67,), (5, 33), (40, 3, 70), (2, 3, 4, 5)):
        for x in itertools.islice(layouts(rng, shape, dtype), 3):
            for count in range(1, len(shape) + 1):
                for axes in itertools.combinations(range(len(shape)), count):
                    for name, f in EXACT_SUMS.items():
                        if name == "var" and math.prod(x.shape[axis] for axis in axes) == 1:
                            continue
                        wanted = f(x.astype(np.float64), axis=axes)
                        got = apply_reduce(isa, name, x, axes)
                        tolerance = 2e-6 if dtype == "float32" else 1e-14
                        scale = np.sqrt(x.size) if name in ("sum", "mean") else 0
                        least = scale * tolerance + np.finfo(dtype).tiny
                        np.testing.assert_allclose(got, wanted, 3 * tolerance, least, err_msg=name)


def test_long_sums_are_near(rng, isa):
    x = rng.uniform(0, 1, (3, 100_003)).astype(np.float32)
    np.testing.assert_allclose(apply_reduce(isa, "sum", x, (1,)), x.astype(float).sum(1), 3e-7)
    np.testing.assert_allclose(apply_reduce(isa, "sum", x.T.copy(), (0,)), x.astype(float).sum(1), 3e-7)


@pytest.mark.parametrize("name", ("sum", "mean", "sum_squares", "var", "prod", "max"))
def test_bits_of_a_reduction_depend_on_its_elements_alone(rng, isa, name):
    """Rows, columns, one by itself: however the outputs lie, and whatever their number."""
    for n in (1, 5, 31, 33, 64, 1000, 1024, 1025, 3001):
        x = rng.standard_normal((n, 70)).astype(np.float32)
        columns = apply_reduce(isa, name, x, (0,))
        rows = apply_reduce(isa, name, x.T.copy(), (1,))
        np.testing.assert_array_equal(columns, rows)
        np.testing.assert_array_equal(apply_reduce(isa, name, x[:, 3:5], (0,)), columns[3:5])
        np.testing.assert_array_equal(apply_reduce(isa, name, x[:, 3:4], (0,)), columns[3:4])
        if n == 1000:
            parts = x.reshape(10, 100, 70)
            np.testing.assert_array_equal(apply_reduce(isa, name, parts, (0, 1)), columns)


def test_special_values_of_reductions_are_torchs(isa):
    torch = pytest.importorskip("torch")
    x = np.array(
        [
            [1, np.nan, 3, 2],
            [np.inf, 1, -np.inf, 0],
            [5, 5, 1, 5],
            [0, -0.0, 0, 0],
            [-np.inf] * 4,
            [np.nan] * 4,
        ],
        np.float32,
    )
    for order in ("C", "F"):
        y = np.asarray(x, order=order)
        t = torch.from_numpy(x)
        for name, f in {
            "sum": torch.sum,
            "mean": torch.mean,
            "prod": torch.prod,
            "max": torch.amax,
            "min": torch.amin,
            "var": torch.var,
            "argmax": torch.argmax,
            "argmin": torch.argmin,
        }.items():
            np.testing.assert_array_equal(apply_reduce(isa, name, y, (1,)), f(t, dim=1).numpy(), err_msg=name)
        for name in ("any", "all"):
            wanted = getattr(torch, name)(t, dim=1).numpy()
            np.testing.assert_array_equal(apply_reduce(isa, name, y, (1,), out_dtype="bool"), wanted)
    assert np.isnan(apply_reduce(isa, "var", x[2:3, :1], (1,)))[0]
    assert np.isnan(apply_reduce(isa, "mean", x[:, :0], (1,))).all()
    assert (apply_reduce(isa, "sum", x[:, :0], (1,)) == 0).all()


def test_reductions_of_whole_numbers_and_of_other_types(rng, isa):
    x = rng.integers(-9, 9, (7, 1500, 3))
    for name in ("sum", "prod", "max", "min"):
        for axes in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
            wanted = getattr(np, name)(x, axis=axes)
            np.testing.assert_array_equal(apply_reduce(isa, name, x, axes, "int64"), wanted)
    np.testing.assert_array_equal(apply_reduce(isa, "argmax", x, (1,), "int64"), x.argmax(1))
    np.testing.assert_array_equal(apply_reduce(isa, "argmin", x, (1,), "int64"), x.argmin(1))
    bits = x > 7
    np.testing.assert_array_equal(apply_reduce(isa, "any", bits, (0,), "int64", "bool"), bits.any(0))
    np.testing.assert_array_equal(apply_reduce(isa, "all", ~bits, (0,), "int64", "bool"), (~bits).all(0))
    np.testing.assert_array_equal(apply_reduce(isa, "sum", bits, (1,), "int64"), bits.sum(1))
    np.testing.assert_allclose(
        apply_reduce(isa, "mean", bits, (1, 2), "float32", "float32"), bits.mean((1, 2)), 1e-6
    )


def test_messages_say_what_was_expected(isa):
    kernels = tables.ARRAY_TABLES[isa]["float32"]
    array = ("float32", (4,))
    with pytest.raises(ValueError, match=r"MapStep: expected an operation of float32, got 'bitwise_and'."):
        steps.MapStep(kernels, "float32", (3,), [array], [("bitwise_and", (0, 0), ())], [(*array, 1)])
    with pytest.raises(ValueError, match=r"MapStep: expected kernels of float64, got float32."):
        steps.MapStep(kernels, "float64", (3,), [array], [("neg", (0,), ())], [(*array, 1)])
    with pytest.raises(ValueError, match=r"ReduceStep: expected floating-point numbers for mean, got int64."):
        steps.ReduceStep(kernels, "mean", "int64", (3,), (8,), "int64", (0,), (), "int64")
    with pytest.raises(ValueError, match=r"MapStep: expected at most 64 operations, got 65."):
        steps.MapStep(kernels, "float32", (3,), [array], [("neg", (0,), ())] * 65, [(*array, 1)])
