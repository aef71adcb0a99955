"""Rules of operators that compute each step apart: element by element, along other axes, products."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastrnn.graph import Node, Value
from fastrnn.program.axes import axes_of
from fastrnn.program.streaming.follow import Followed, Rows, arrays_of, follows
from fastrnn.program.streaming.places import Place

ELEMENT_WISE = """
add sub rsub mul addcmul addcdiv lerp hypot div floor_divide fmod remainder pow float_power xlogy logaddexp
logaddexp2 atan2 copysign maximum minimum fmax fmin clamp clamp_min clamp_max arctan2 clip divide multiply
special_xlogy subtract true_divide eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and
bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift logical_not bitwise_not isnan isinf isfinite
isposinf isneginf isclose where masked_fill __and__ __lshift__ __or__ __rshift__ __xor__ greater
greater_equal less less_equal not_equal exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sigmoid
sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh deg2rad rad2deg sinc erf erfc erfinv lgamma
floor ceil trunc abs neg positive sign sgn square round frac logit nan_to_num signbit angle absolute arccos
arccosh arcsin arcsinh arctan arctanh fix negative special_erf special_erfc special_erfinv special_exp2
special_expit special_expm1 special_gammaln special_log1p special_logit special_round special_sinc relu
relu6 leaky_relu threshold hardtanh hardsigmoid hardswish softshrink hardshrink elu celu selu gelu silu
softplus mish log_sigmoid softsign tanhshrink _prelu_kernel _safe_softmax copy to _to_copy type_as float
double long int bool clone alias contiguous detach lift lift_fresh alias_copy lift_fresh_copy zeros_like
ones_like full_like empty_like zero fill real imag complex polar conj _conj _conj_physical conj_physical
resolve_conj resolve_neg bucketize
""".split()


def common(f: Followed, node: Node, names: Iterable[str], ndim: int) -> Place:
    """Where the steps of arrays that are broadcast to ``ndim`` axes are: in one place for all of them."""
    found: Place | None = None
    same: Place | None = None
    for name in names:
        shape = f.first[name].shape
        place = f.places.get(name)
        if place is None:
            continue
        place = place.at(place.axis + ndim - len(shape))
        if place.is_same:
            same = place if same is None or same.is_filled else same
            if found is not None and found.axis != place.axis:
                f.refuse(node, f"{node.operator} of each step with each other one")
        elif found is None:
            found = place
        elif found != place:
            if found.axis != place.axis or found.before != 1 or place.before != 1:
                f.refuse(node, f"{node.operator} of each step with each other one")
            found = Place(found.axis)  # several steps of one are one step of the other
    result = found or same
    assert result is not None
    if same is not None and (
        same.axis != result.axis
        or not (same.is_filled or (same.before, same.after) == (result.before, result.after))
    ):
        f.refuse(node, f"{node.operator} of each step with each other one")
    for name in names:
        shape = f.first[name].shape
        axis = result.axis - ndim + len(shape)
        if name not in f.places and axis >= 0 and shape[axis] != 1:
            f.refuse(node, f"{node.operator} with a number for each step")
    return result


@follows(*ELEMENT_WISE)
def element_wise(f: Followed, node: Node) -> Any:
    names = list(dict.fromkeys(arrays_of(node)))
    ndim = max(len(f.first[name].shape) for name in names)
    place = common(f, node, names, ndim)
    return f.rows(f.fixed(node), [place], place)


@follows("prelu", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def same_place(f: Followed, node: Node) -> Rows:
    if node.arguments.get("train", False):
        f.refuse(node, f"{node.operator} in training")
    place = f.place(next(iter(node.arguments.values())))
    if place is None or f.place(node.arguments.get("weight")) is not None:
        f.refuse(node, f"{node.operator} with a number for each step")
    return f.rows(f.fixed(node), [place])


# ---------------------------------------------------------------- along other axes

REDUCTIONS = (
    "sum", "nansum", "mean", "nanmean", "prod", "count_nonzero", "logsumexp", "special_logsumexp", "amax",
    "amin", "aminmax", "argmax", "argmin", "max", "min", "all", "any", "var", "std", "var_mean", "std_mean",
    "linalg_vector_norm", "norm", "frobenius_norm", "median", "nanmedian",
)  # fmt: skip
# With the axis along which they go if none is given.
ALONG: dict[str, Any] = {
    **dict.fromkeys(("softmax", "_softmax", "special_softmax", "log_softmax", "_log_softmax")),
    **dict.fromkeys(("special_log_softmax", "softmin", "cumsum", "cumprod", "cummax", "cummin")),
    **dict.fromkeys(("logcumsumexp", "_logcumsumexp", "roll", "rot90", "flip")),
    **dict.fromkeys(("sort", "argsort", "topk", "glu"), -1),
    **dict.fromkeys(("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft"), -1),
    **dict.fromkeys(("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2"), (-2, -1)),
    "normalize": 1,
}  # fmt: skip


def _checked(f: Followed, node: Node, dim: Any) -> tuple[Place, list[int]]:
    """The place of a node's array and the axes along which it goes."""
    array = next(iter(node.arguments.values()))
    place = f.place(array)
    if place is None:
        f.refuse(node, f"{node.operator} with a number for each step")
    if isinstance(dim, bool):
        dim = None
    axes = axes_of(dim, len(f.shape(array)))
    if place.axis in axes:
        f.refuse(node, f"{node.operator} over {f.axis_word}")
    return place, axes


@follows(*REDUCTIONS)
def reduction(f: Followed, node: Node) -> Any:
    if node.arguments.get("other") is not None:
        return element_wise(f, node)
    place, axes = _checked(f, node, f.number(node, "dim"))
    if not node.arguments.get("keepdim", False):
        place = place.at(place.axis - sum(axis < place.axis for axis in axes))
    return f.rows(f.fixed(node), [place] * len(node.outputs))


@follows(*ALONG)
def along(f: Followed, node: Node) -> Rows:
    dim = f.number(node, "dims" if "dims" in node.arguments else "dim", ALONG[node.operator])
    place, _ = _checked(f, node, dim)
    return f.rows(f.fixed(node), [place] * len(node.outputs))


@follows("layer_norm", "native_layer_norm", "rms_norm")
def layer_norm(f: Followed, node: Node) -> Rows:
    shape = f.number(node, "normalized_shape")
    count = len(shape) if isinstance(shape, tuple) else 1
    place, _ = _checked(f, node, tuple(range(-count, 0)))
    return f.rows(f.fixed(node), [place] * len(node.outputs))


@follows("batch_norm", "native_batch_norm")
def batch_norm(f: Followed, node: Node) -> Rows:
    if node.arguments.get("training", False):
        f.refuse(node, f"{node.operator} with the statistics of what it is given")
    place, _ = _checked(f, node, 1)
    return f.rows(f.fixed(node), [place, None, None])


@follows("group_norm", "native_group_norm", "instance_norm", "local_response_norm", "channel_shuffle")
def apart_in_batch(f: Followed, node: Node) -> Rows:
    array = next(iter(node.arguments.values()))
    first = 2 if node.operator == "channel_shuffle" else 1
    axes = (1,) if first == 2 else tuple(range(1, len(f.shape(array))))
    place, _ = _checked(f, node, axes)
    return f.rows(f.fixed(node), [place] * len(node.outputs))


@follows("scaled_dot_product_attention")
def attention(f: Followed, node: Node) -> Rows:
    ndim = len(f.shape(node.arguments["query"]))
    place = common(f, node, list(arrays_of(node)), ndim)
    if place.axis >= ndim - 2:
        f.refuse(node, f"attention over {f.axis_word}")
    return f.rows(f.fixed(node), [place], place)


# ---------------------------------------------------------------- products


@follows("linear")
def linear(f: Followed, node: Node) -> Rows:
    if f.place(node.arguments["weight"]) or f.place(node.arguments.get("bias")):
        f.refuse(node, "linear with a weight for each step")
    place, _ = _checked(f, node, -1)
    return f.rows(f.fixed(node), [place])


SECOND = {
    "matmul": "other", "linalg_matmul": "other", "mm": "mat2", "bmm": "mat2", "mv": "vec", "addmm": "mat2",
    "baddbmm": "batch2",
}  # fmt: skip
FIRST = {"addmm": "mat1", "baddbmm": "batch1"}


@follows(*SECOND)
def product(f: Followed, node: Node) -> Rows:
    left = node.arguments[FIRST.get(node.operator, "self")]
    right = node.arguments[SECOND[node.operator]]
    summand = node.arguments["self"] if node.operator in FIRST else None
    m, n = len(f.shape(left)), len(f.shape(right))
    ndim = max(m, n) if min(m, n) > 1 else max(m, n) - 1
    a, b, added = f.place(left), f.place(right), f.place(summand)
    if (a and a.axis == m - 1) or (b and b.axis == max(n - 2, 0)):
        f.refuse(node, f"a product that sums over {f.axis_word}")
    places = []
    if a is not None:
        places.append(a.at(a.axis if n == 1 else a.axis + ndim - m))
    if b is not None:
        places.append(b.at(min(b.axis, ndim - 1) if m == 1 else b.axis + ndim - n))
    if added is not None:
        places.append(added.at(added.axis + ndim - len(f.shape(summand))))
    found = next((place for place in places if not place.is_same), places[0])
    if any(place.axis != found.axis or not (place.is_same or place == found) for place in places):
        f.refuse(node, f"{node.operator} of each step with each other one")
    for argument, place in ((left, a), (right, b), (summand, added)):
        if isinstance(argument, Value) and place is None:
            shape = f.shape(argument)
            axis = found.axis - ndim + len(shape)
            is_broadcast = argument is summand or found.axis < ndim - 2
            if is_broadcast and axis >= 0 and shape[axis] != 1:
                f.refuse(node, f"{node.operator} with a number for each step")
    return f.rows(f.fixed(node), [found], found)


@follows("einsum")
def einsum(f: Followed, node: Node) -> Rows:
    equation = str(node.arguments["equation"]).replace(" ", "")
    given, _, result = equation.partition("->")
    letters = set()
    found: Place | None = None
    tensors = node.arguments["tensors"]
    if "." in equation or not result:
        f.refuse(node, "einsum without names for all axes")
    for names, tensor in zip(given.split(","), tensors, strict=True):
        place = f.place(tensor)
        if place is not None:
            letters.add(names[place.axis])
            found = place if found is None or found.is_same else found
    if len(letters) != 1 or found is None:
        f.refuse(node, "einsum of each step with each other one")
    (letter,) = letters
    for names, tensor in zip(given.split(","), tensors, strict=True):
        if letter in names and f.place(tensor) is None:
            f.refuse(node, "einsum with a number for each step")
    if letter not in result:
        f.refuse(node, f"einsum that sums over {f.axis_word}")
    return f.rows(f.fixed(node), [found.at(result.index(letter))], found)


# ---------------------------------------------------------------- tables


@follows("embedding", "one_hot")
def embedding(f: Followed, node: Node) -> Rows:
    place = f.place(node.arguments["indices" if node.operator == "embedding" else "self"])
    if place is None or (node.operator == "one_hot" and node.arguments.get("num_classes", -1) == -1):
        f.refuse(node, f"{node.operator} of a table over time")
    return f.rows(f.fixed(node), [place])


@follows("index_select", "gather", "take_along_dim")
def gather(f: Followed, node: Node) -> Rows:
    array = node.arguments["self"]
    ndim = len(f.shape(array))
    dim = f.number(node, "dim")
    index = node.arguments.get("index", node.arguments.get("indices"))
    place = f.place(array)
    if node.operator == "index_select":
        if place is None or f.place(index) is not None or place.axis == dim % ndim:
            f.refuse(node, f"{node.operator} over time")
        return f.rows(f.fixed(node), [place])
    if dim is None or place is None or f.place(index) != place or place.axis == dim % ndim:
        f.refuse(node, f"{node.operator} over time")
    return f.rows(f.fixed(node), [place], place)


@follows("index", "_unsafe_index")
def index(f: Followed, node: Node) -> Rows:
    array, indices = node.arguments["self"], node.arguments["indices"]
    given = [(axis, part) for axis, part in enumerate(indices) if part is not None]
    place = f.place(array)
    if len(given) == 1:
        axis, numbers = given[0]
        own = f.place(numbers)
        is_mask = f.first[numbers.name].dtype == "bool"
        if place is None and own is not None and not is_mask:
            return f.rows(f.fixed(node), [own.at(axis + own.axis)])
        if place is not None and own is None and not is_mask and place.axis != axis:
            more = len(f.shape(numbers)) - 1 if axis < place.axis else 0
            return f.rows(f.fixed(node), [place.at(place.axis + more)])
    f.refuse(node, "an index over time")
