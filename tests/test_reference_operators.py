"""The definitions of ATen's operators beside torch: arguments, promotion, special values, errors."""

import inspect
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aten import agree, to_torch, torch

from fastrnn.reference.operators import IGNORED, OPERATORS
from fastrnn.reference.operators.promotion import result_type

pytestmark = pytest.mark.filterwarnings("ignore")

NAN, INF = np.nan, np.inf
SPECIAL = np.array(
    [NAN, INF, -INF, 0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, -3, 1e-3, -1e-3, 88.8, -104, 1e6, 20.5],
    np.float32,
)
WHOLE = np.array([-7, -2, -1, 1, 2, 3, 9, 0])
BOOLS = np.array([True, False])
COMPLEX = np.array([1 + 2j, -1 - 0.5j, 0, -2], np.complex64)
TABLE = np.array([[1, NAN, 3, 3], [2, 5, -INF, 5], [0, 0, 7, 7]], np.float32)
FINITE = np.nan_to_num(TABLE, neginf=-3)
VOLUME = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)

# Of torch.nn.functional, while modules call ATen's operators, and what remains of packed sequences.
OUTSIDE_ATEN = set("softsign tanhshrink softmin normalize lp_pool1d lp_pool2d local_response_norm".split())
OUTSIDE_ATEN |= {"weight_norm", "pad_steps"}
UNARY = (
    "abs neg sign sgn reciprocal square sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sin cos tan "
    "asin acos atan sinh cosh tanh asinh acosh atanh sigmoid floor ceil trunc round frac erf erfc "
    "erfinv nan_to_num deg2rad rad2deg sinc lgamma logit isnan isinf isfinite isposinf isneginf "
    "signbit logical_not bitwise_not relu relu6 leaky_relu elu celu selu silu mish softplus "
    "softshrink hardshrink hardtanh hardsigmoid hardswish log_sigmoid positive angle"
).split()
BINARY = (
    "add sub rsub mul div pow float_power atan2 fmod remainder floor_divide maximum minimum fmax fmin hypot "
    "xlogy logaddexp logaddexp2 copysign eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and "
    "bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift"
).split()
PAIRS = [
    (SPECIAL[:, None], SPECIAL[None]),
    (WHOLE[:, None], WHOLE[None, :7]),
    (WHOLE, 3),
    (WHOLE, -3),
    (WHOLE, 2.5),
    (SPECIAL, 2),
    (SPECIAL, -2.5),
    (BOOLS, BOOLS),
    (WHOLE[:2], BOOLS),
    (WHOLE, np.array(2.5, np.float32)),
    (SPECIAL, np.array(2.5)),
    (WHOLE.astype(np.int32), np.array(5)),
    (COMPLEX, 1.5),
    (WHOLE.astype(np.int32), True),
    (BOOLS, 2),
    (BOOLS, 2.5),
]


def overload_of(name, operand):
    """Return the overload of an operator for an array or a number as second operand, or None."""
    names = (
        ("Tensor", "Tensor_Tensor", "default")
        if isinstance(operand, np.ndarray)
        else ("Tensor_Scalar", "Scalar")
    )
    return next(
        (overload for overload in names if overload in getattr(torch.ops.aten, name).overloads()), None
    )


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - OUTSIDE_ATEN))
def test_arguments_are_those_of_aten(name):
    packet = getattr(torch.ops.aten, name)
    taken = inspect.signature(OPERATORS[name]).parameters
    for overload in packet.overloads():
        schema = getattr(packet, overload)._schema
        text = str(schema)
        is_on_arrays = "Tensor self" in text or "Tensor[] tensors" in text
        if is_on_arrays and not any(word in text for word in ("Dimname", "!", "out_dtype")):
            assert {argument.name for argument in schema.arguments} - IGNORED <= set(taken), schema


def test_promotion_is_that_of_torch():
    dtypes = ("bool", "uint8", "int16", "int32", "int64", "float32", "float64", "complex64", "complex128")
    arrays = [np.ones(shape, dtype) for shape in ((2,), ()) for dtype in dtypes]
    for a, b in itertools.product(arrays, [*arrays, True, 2, 1.5, 1j]):
        wanted = str(torch.result_type(to_torch(a), to_torch(b))).removeprefix("torch.")
        assert result_type(a, b) == result_type(b, a) == wanted


@pytest.mark.parametrize("name", UNARY)
def test_functions_at_special_values(name):
    for array in (SPECIAL, SPECIAL.astype(np.float64), WHOLE, WHOLE.astype(np.int32), BOOLS, COMPLEX):
        agree(name, self=array)


@pytest.mark.parametrize("name", BINARY)
def test_pairs_at_special_values(name):
    key = "exponent" if "pow" in name else "other"
    for a, b in PAIRS:
        if overload_of(name, b) is not None:
            agree(name, overload_of(name, b), self=a, **{key: b})


@pytest.mark.parametrize("rounding_mode", ["trunc", "floor", "up"])
def test_division_rounds(rounding_mode):
    for a, b in PAIRS:
        overload = f"{overload_of('div', b)}_mode"
        agree("div", overload, self=a, other=b, rounding_mode=rounding_mode)


def test_scalars_that_come_first():
    for number in (2, 2.5, -1, 0.5):
        agree("pow", "Scalar", self=number, exponent=WHOLE)
        agree("pow", "Scalar", self=number, exponent=SPECIAL)
        agree("remainder", "Scalar_Tensor", self=number, other=WHOLE[:7])
        agree("xlogy", "Scalar_Self", self=number, other=SPECIAL)
        agree("where", "ScalarSelf", condition=WHOLE > 0, self=number, other=WHOLE)
        agree("where", "Scalar", condition=WHOLE > 0, self=number, other=1)


def test_factors_and_limits():
    for alpha in (2, 2.5, True):
        agree("add", "Tensor", self=WHOLE, other=WHOLE, alpha=alpha)
        agree("sub", "Tensor", self=SPECIAL[:8], other=WHOLE, alpha=alpha)
        agree("addcmul", self=WHOLE, tensor1=WHOLE, tensor2=WHOLE, value=alpha)
        agree("addcdiv", self=SPECIAL[:8], tensor1=WHOLE, tensor2=WHOLE, value=alpha)
    for weight in (0.3, 0.5, 1.0, 2):
        agree("lerp", "Scalar", self=SPECIAL, end=SPECIAL[::-1].copy(), weight=weight)
    for low, high in ((0, 1), (None, 1), (2, 1), (0.5, None), (NAN, 1), (-1, 1.5), (None, None)):
        for array in (SPECIAL, WHOLE, WHOLE.astype(np.int32), BOOLS):
            agree("clamp", self=array, min=low, max=high)
    agree("clamp", "Tensor", self=WHOLE, min=SPECIAL[:8], max=None)
    for decimals in (-2, -1, 1, 3):
        agree(
            "round",
            "decimals",
            self=np.array([0.125, 0.5005, 123.456, -2.675, NAN], np.float32),
            decimals=decimals,
        )


def test_values_that_are_filled_in():
    for value in (1.5, INF, True, 1j):
        for array in (WHOLE, SPECIAL, BOOLS):
            agree("masked_fill", "Scalar", self=array, mask=array > 0, value=value)
    agree("copy", self=np.zeros((4, 2, 3), np.int64), src=np.arange(6.0).reshape(2, 3) + 0.7)
    agree("fill", "Scalar", self=WHOLE, value=1.5)
    agree("fill", "Tensor", self=WHOLE, value=np.array(2.7))
    agree("full_like", self=WHOLE, fill_value=1.5)
    for value in (1.5, True, 3):
        agree("full", size=(2, 3), fill_value=value)
        agree("scalar_tensor", s=value)
    for array in (np.abs(WHOLE), WHOLE, np.abs(WHOLE).astype(np.int32)):
        agree("one_hot", self=array)
        agree("one_hot", self=array, num_classes=5)


def test_series():
    for start, end, steps in ((0, 1, 5), (1, -1, 4), (0, 1, 1), (0, 10, 0), (2.5, 7, 3)):
        for dtype in (None, "float64", "int64", "complex64"):
            agree("linspace", start=start, end=end, steps=steps, dtype=dtype)
            agree("logspace", start=start, end=end, steps=steps, dtype=dtype)
    for start, end, step in (
        (0, 5, 1),
        (0, 5, 2),
        (5, 0, -2),
        (0, 1, 0.1),
        (0, 5.5, 1),
        (3, 3, 1),
        (0, 5, -1),
    ):
        for dtype in (None, "float64", "int64", "int32", "float32"):
            agree("arange", "start_step", start=start, end=end, step=step, dtype=dtype)


@pytest.mark.parametrize(
    "name", ["hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window"]
)
def test_windows(name):
    for length in (0, 1, 2, 5, 16):
        agree(name, window_length=length)
        for periodic in (True, False):
            agree(name, "periodic", window_length=length, periodic=periodic, dtype="float64")


def test_parts_of_an_axis():
    for start, end, step in (
        (1, None, 1),
        (None, -1, 2),
        (-3, 100, 1),
        (4, 2, 1),
        (0, 2**63 - 1, 3),
        (0, 3, 0),
    ):
        agree("slice", "Tensor", self=VOLUME, dim=-1, start=start, end=end, step=step)
    for count in (0, 1, 2, 3, 4, 5, 6, 7, 9):
        agree("chunk", self=VOLUME, chunks=count, dim=-1)
        agree("tensor_split", "sections", self=VOLUME, sections=count, dim=-1)
        agree("split", "Tensor", self=VOLUME, split_size=count, dim=-1)
    for sizes in ((1, 2, 3), (1, 2), (-1, 7)):
        agree("split_with_sizes", self=VOLUME, split_sizes=sizes, dim=3)
    for index in (-4, -3, 2, 3):
        agree("select", "int", self=VOLUME, dim=1, index=index)
        agree("narrow", self=VOLUME, dim=1, start=index, length=1)


def test_shapes():
    for dim in (-5, -4, -1, 0, 2, 4):
        agree("unsqueeze", self=VOLUME[0], dim=dim)
        agree("squeeze", "dim", self=VOLUME[:1], dim=dim)
    for size in ((4, 2, -1, 5, 6), (-1, 2, 3, 5, 6), (3, 2)):
        agree("expand", self=VOLUME[:, :1], size=size)
    for size in ((-1, -1), (7, -1), (6, -1), (180,), (0, -1)):
        agree("view", self=VOLUME, size=size)
        agree("unflatten", "int", self=VOLUME, dim=-1, sizes=size)
    for dtype in ("int32", "float64"):
        agree("view", "dtype", self=VOLUME, dtype=dtype)
    agree("movedim", "intlist", self=VOLUME, source=(0, -1), destination=(-1, 0))
    agree("roll", self=VOLUME, shifts=(2, -1), dims=(0, -1))
    agree("unfold", self=VOLUME, dimension=-1, size=3, step=2)
    agree("cat", tensors=(VOLUME, VOLUME.astype(np.float64)), dim=-1)
    agree("cat", tensors=(np.zeros(0), VOLUME), dim=1)
    agree("stack", tensors=(VOLUME, VOLUME[:1]), dim=-1)


def test_padding():
    for pad in (
        (1, 2),
        (-1, 2),
        (-3, -3),
        (1, 1, 1, 1),
        (-6, 1),
        (-1, -2, 3, 4, 0, 1),
        (1, 2, 3, 1),
        (7, 0, 0, 0),
    ):
        agree("constant_pad_nd", self=VOLUME, pad=pad, value=1.5)
        for mode in ("reflect", "circular", "replicate", "constant"):
            agree("pad", self=VOLUME, pad=pad, mode=mode)
    for padding in ((2, 1), (4, 4), (5, 1), (6, 1), (-1, 2), (-3, -3)):
        agree("reflection_pad1d", self=VOLUME[0, 0], padding=padding)
        agree("replication_pad1d", self=VOLUME[0], padding=padding)


@pytest.mark.parametrize("dim", [(0,), (0, 1), (-1,), (), None, (2,), (0, 0)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions_along_axes(dim, keepdim):
    for name, overload in (
        ("sum", "dim_IntList"),
        ("mean", "dim"),
        ("nansum", "default"),
        ("nanmean", "default"),
    ):
        agree(name, overload, self=TABLE, dim=dim, keepdim=keepdim)
    for name in ("any", "all"):
        agree(name, "dims", self=TABLE, dim=dim, keepdim=keepdim)
    for correction in (0, 1, 3, None, 0.5):
        agree("var", "correction", self=FINITE, dim=dim, correction=correction, keepdim=keepdim)
        agree("std_mean", "correction", self=FINITE, dim=dim, correction=correction, keepdim=keepdim)
    for order in (2, 1, 0, INF, -INF, 3, -1, 0.5):
        agree("linalg_vector_norm", self=FINITE, ord=order, dim=dim, keepdim=keepdim)
    if dim:
        agree("logsumexp", self=TABLE, dim=dim, keepdim=keepdim)
        agree("amax", self=TABLE, dim=dim, keepdim=keepdim)


def test_order_with_nan_and_ties():
    for name, overload in itertools.product(("max", "min", "median", "nanmedian"), ("dim", "default")):
        for array in (TABLE, WHOLE, BOOLS, np.zeros((2, 0), np.float32)):
            if array is not BOOLS or name in ("max", "min"):
                agree(name, overload, self=array, **({"dim": -1} if overload == "dim" else {}))
    for name in ("cummax", "cummin", "mode", "sort", "argmax", "argmin", "argsort"):
        agree(name, self=TABLE, dim=1)
        agree(name, self=TABLE[0, 0], dim=0)
    agree("sort", "stable", self=TABLE, stable=True, dim=0, descending=True)
    for method in ("linear", "lower", "higher", "midpoint", "nearest"):
        agree("quantile", "scalar", self=TABLE, q=0.3, dim=1, interpolation=method)
        agree("nanquantile", self=TABLE, q=np.array([0.1, 0.5, 1], np.float32), dim=0, interpolation=method)
    for bins, low, high in ((4, 0, 0), (5, 0, 3), (5, 3, 0)):
        agree("histc", self=FINITE, bins=bins, min=low, max=high)


def test_softmax_of_infinities():
    scores = np.array([[INF, 1, 2], [-INF, -INF, -INF], [NAN, 1, 2], [-INF, 1, 2]], np.float32)
    for name in ("_softmax", "_log_softmax"):
        agree(name, self=scores, dim=-1, half_to_float=False)
    agree("_safe_softmax", self=scores, dim=-1)
    agree("softmax", "int", self=WHOLE, dim=0)
    agree("softmax", "int", self=WHOLE, dim=0, dtype="float64")


def test_training_is_refused():
    with pytest.raises(ValueError, match=r"dropout: expected .* call eval\(\)"):
        OPERATORS["dropout"](input=VOLUME, p=0.5, train=True)


def test_samples_of_torch():
    """The first samples of operators in torch's own table. Their import is ten times slower below pytest."""
    command = [sys.executable, Path(__file__).with_name("aten.py")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert int(result.stdout) > 3000
