"""The definitions of the operators that layers are made of beside torch: values, shapes, dtypes, errors."""

import itertools

import numpy as np
import pytest
from aten import Recorder, agree, difference, to_numpy, to_torch, torch

from fastrnn.reference.operators import OPERATORS

pytestmark = pytest.mark.filterwarnings("ignore")

NAN, INF = np.nan, np.inf


def numbers(*shape, dtype=np.float32):
    """Return random numbers that are the same in each run."""
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def integers(*shape, most=5):
    return np.random.default_rng(0).integers(0, most, shape)


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex64, bool])
def test_products(dtype):
    a, b, v = (np.arange(n).astype(dtype) for n in (12, 8, 4))
    a, b = a.reshape(3, 4), b.reshape(4, 2)
    agree("mm", self=a, mat2=b)
    agree("mm", self=a, mat2=a)
    agree("mv", self=a, vec=v)
    agree("dot", self=v, tensor=v)
    agree("outer", self=v, vec2=v)
    agree("bmm", self=a[None], mat2=b[None])
    for factors in ({}, {"beta": 2, "alpha": 3}, {"beta": 0.5, "alpha": 1.5}):
        agree("addmm", self=a[:, :1], mat1=a, mat2=b, **factors)
        agree("addmv", self=a[:, 0], mat=a, vec=v, **factors)
        agree("addr", self=a, vec1=a[:, 0], vec2=v, **factors)
        agree("baddbmm", self=a[None, :, :1], batch1=a[None], batch2=b[None], **factors)
        agree("addbmm", self=a[:, :1], batch1=a[None], batch2=b[None], **factors)


def test_a_summand_with_factor_0_does_not_count():
    agree("addmm", self=np.full((2, 2), NAN), mat1=np.eye(2), mat2=np.eye(2), beta=0)


def test_products_that_broadcast():
    shapes = ((3,), (2, 3), (3, 4), (5, 1, 2, 3), (4, 3, 2), (2,))
    for a, b in itertools.product(shapes, shapes):
        agree("matmul", self=numbers(*a, dtype=np.float64), other=numbers(*b, dtype=np.float64))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("...ij,...j", ((2, 3, 4), (2, 4))),
        ("...ij->ij", ((2, 3, 4),)),
        ("ii->i", ((3, 3),)),
        ("i, j -> ji", ((3,), (4,))),
        ("ij,jk", ((2, 3), (4, 5))),
    ],
)
def test_einsum(equation, shapes):
    tensors = [numbers(*shape, dtype=np.float64) for shape in shapes]
    agree("einsum", equation=equation, tensors=tensors)


def test_distances_and_angles():
    a, b = numbers(2, 3, 4, dtype=np.float64), numbers(2, 5, 4, dtype=np.float64)
    for p in (0, 0.5, 1, 2, 3, INF):
        agree("cdist", x1=a, x2=b, p=p)
        agree("pairwise_distance", x1=a, x2=a[:, ::-1].copy(), p=p)
    for dim in (-1, 0, 1, 3):
        agree("cosine_similarity", x1=a, x2=a[::-1].copy(), dim=dim)
    agree("cosine_similarity", x1=np.zeros((2, 3)), x2=a[0, :2, :3])


def test_products_by_other_names():
    a, b, c = numbers(3, 4), numbers(4, 2), numbers(2, 5)
    agree("chain_matmul", matrices=(a, b, c))
    agree("linalg_multi_dot", tensors=(a[0], b, c[:, 0].copy()))
    agree("linalg_vecdot", x=a + 1j * a[::-1], y=a + 0j, dim=0)
    agree("ger", self=a[0], vec2=c[0])


def test_vectors_of_length_1():
    x = numbers(2, 3, 4)
    for p, dim in (*itertools.product((1, 2, 3, INF), (0, 1, -1)), (2, (1, 2))):
        wanted = torch.nn.functional.normalize(to_torch(x), p, dim)
        assert difference(OPERATORS["normalize"](x, p, dim), to_numpy(wanted)) is None


# ---------------------------------------------------------------- convolutions


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_convolutions(axes, groups, dtype):
    x = (4 * numbers(2, 4, *(7, 6, 5)[:axes])).astype(dtype)
    w = (4 * numbers(6, 4 // groups, *(3, 2, 1)[:axes])).astype(dtype)
    bias = w[:, 0].reshape(6, -1)[:, 0].copy()
    name = f"conv{axes}d"
    for stride, padding, dilation in itertools.product((1, 2), (0, 1), (1, 2)):
        options = {"stride": [stride], "padding": [padding], "dilation": [dilation], "groups": groups}
        agree(name, input=x, weight=w, bias=bias, **options)
        agree(name, input=x[0], weight=w, **options)
    for padding, stride in itertools.product(("same", "valid", "full"), (1, 2)):
        agree(name, "padding", input=x, weight=w, stride=[stride], padding=padding, groups=groups)
    agree(name, input=x, weight=w, groups=3)
    agree(name, input=x, weight=w, bias=bias[1:], groups=groups)
    agree(name, input=x, weight=w, dilation=[9], groups=groups)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(axes, groups):
    x, w = numbers(2, 4, *(5, 3)[:axes], dtype=np.float64), numbers(4, 3, *(3, 2)[:axes], dtype=np.float64)
    bias = numbers(3 * groups, dtype=np.float64)
    name, overload = f"conv_transpose{axes}d", "default" if axes == 1 else "input"
    for stride, padding, dilation, more in itertools.product((1, 2, 3), (0, 1), (1, 2), (0, 1, 3)):
        options = {"stride": [stride], "padding": [padding], "dilation": [dilation], "groups": groups}
        agree(name, overload, input=x, weight=w, bias=bias, output_padding=[more], **options)
    agree(name, overload, input=x[0], weight=w, groups=groups)
    agree(name, overload, input=x, weight=w, groups=groups, padding=[9])


def test_convolution_has_both_forms():
    x, w = numbers(2, 4, 7, 6, dtype=np.float64), numbers(4, 4, 3, 2, dtype=np.float64)
    for transposed in (False, True):
        options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "output_padding": (0, 0)}
        agree("convolution", input=x, weight=w, bias=None, transposed=transposed, groups=1, **options)


def test_patches():
    image = numbers(2, 3, 7, 6, dtype=np.float64)
    for kernel, dilation, padding, stride in (((3, 2), 1, 0, 1), ((2, 2), 2, 1, 2), ((3, 3), 1, 2, (2, 3))):
        each = [
            value if isinstance(value, tuple) else (value, value) for value in (dilation, padding, stride)
        ]
        options = dict(zip(("dilation", "padding", "stride"), each, strict=True), kernel_size=kernel)
        agree("im2col", self=image, **options)
        columns = OPERATORS["im2col"](image, **options)
        agree("col2im", self=columns, output_size=(7, 6), **options)
        agree("col2im", self=columns[0], output_size=(7, 6), **options)
        agree("col2im", self=columns, output_size=(9, 6), **options)


# ---------------------------------------------------------------- pools


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_pools(ceil_mode, kernel):
    image, line = numbers(2, 3, 8, 7), numbers(2, 3, 9)
    image[0, 0, 2, 3] = image[0, 0, 2, 4] = NAN
    image[0, 1] = -INF
    for stride, padding in itertools.product((1, 2, 3, 5), (0, 1, 2)):
        options = {"kernel_size": [kernel], "stride": [stride], "padding": [padding], "ceil_mode": ceil_mode}
        for dilation in (1, 2):
            agree("max_pool2d_with_indices", self=image, dilation=[dilation], **options)
            agree("max_pool2d", self=image[0], dilation=[dilation], **options)
            agree("max_pool1d", self=line, dilation=[dilation], **options)
            agree("max_pool1d_with_indices", self=line, dilation=[dilation], **options)
        for include in (False, True):
            agree("avg_pool1d", self=line, count_include_pad=include, **options)
            for divisor in (None, 3, 0):
                more = {"count_include_pad": include, "divisor_override": divisor}
                agree("avg_pool2d", self=image[1:], **options, **more)
                agree("avg_pool2d", self=integers(2, 8, 7) - 2, **options, **more)


def test_pools_for_a_number_of_outputs():
    image, line = numbers(2, 3, 8, 7), numbers(2, 3, 9)
    image[0, 0, 2, 3] = image[0, 0, 2, 4] = NAN
    for count in (1, 2, 3, 5, 9, 12):
        for name in ("adaptive_avg_pool1d", "adaptive_max_pool1d"):
            agree(name, self=line, output_size=[count])
        for name in ("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"):
            agree(name, self=image, output_size=[count, 4])
            agree(name, self=image[1], output_size=[count, 4])


def test_pools_of_powers():
    line, image = np.abs(numbers(2, 3, 9)), np.abs(numbers(2, 3, 8, 7))
    for p, kernel, stride in ((2, 3, None), (1, 2, 1), (3, 2, 3)):
        for name, array in (("lp_pool1d", line), ("lp_pool2d", image)):
            wanted = getattr(torch.nn.functional, name)(to_torch(array), p, kernel, stride)
            assert difference(OPERATORS[name](array, p, kernel, stride), to_numpy(wanted)) is None


# ---------------------------------------------------------------- other sizes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_sizes(dtype):
    line, image = numbers(2, 3, 7, dtype=dtype), numbers(2, 3, 7, 5, dtype=dtype)
    for new in (1, 2, 5, 7, 10, 14, 23):
        for name in ("upsample_nearest1d", "_upsample_nearest_exact1d"):
            agree(name, self=line, output_size=[new])
        for name in ("upsample_nearest2d", "_upsample_nearest_exact2d"):
            agree(name, self=image, output_size=[new, 6])
        for align in (False, True):
            agree("upsample_linear1d", self=line, output_size=[new], align_corners=align)
            agree("upsample_bilinear2d", self=image, output_size=[new, 6], align_corners=align)
    for factor in (0.4, 0.7, 1.5, 2.0, 2.6, 3.0):
        one, two = {"output_size": None, "scale_factors": [factor]}, {"scale_factors": [factor, 1.3]}
        for name in ("upsample_nearest1d", "_upsample_nearest_exact1d"):
            agree(name, "vec", input=line, **one)
        for align in (False, True):
            agree("upsample_linear1d", "vec", input=line, align_corners=align, **one)
            agree("upsample_bilinear2d", "vec", input=image, output_size=None, align_corners=align, **two)


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_normalisation(dtype):
    x = (3 * numbers(3, 4, 5, 2)).astype(dtype)
    weight, bias = numbers(4, dtype=dtype), numbers(4, dtype=dtype)[::-1].copy()
    mean, variance = bias, np.abs(weight) + np.ones((), dtype)
    for w, b in ((weight, bias), (None, None), (weight[:3], None)):
        statistics = {"running_mean": mean, "running_var": variance, "momentum": 0.1, "eps": 1e-5}
        names = {"input": x, "weight": w, "bias": b}
        agree("batch_norm", **names, **statistics, training=False, cudnn_enabled=True)
        if w is None or w.size == 4:  # torch reads beyond the others
            agree("native_batch_norm", **names, **statistics, training=False)
            agree("_native_batch_norm_legit_no_training", **names, **statistics)
        without = {"running_mean": None, "running_var": None, "momentum": 0.1, "eps": 1e-5}
        agree("batch_norm", **names, **without, training=True, cudnn_enabled=True)
        agree("instance_norm", **names, **without, use_input_stats=True, cudnn_enabled=True)
        agree("instance_norm", **names, **statistics, use_input_stats=False, cudnn_enabled=True)
        for groups in (1, 2, 4, 3):
            agree("group_norm", **names, num_groups=groups)
            agree("native_group_norm", **names, N=3, C=4, HxW=10, group=groups, eps=1e-5)
    for shape in ((2,), (5, 2), (4, 5, 2), (3,), ()):
        agree("layer_norm", input=x, normalized_shape=shape)
        agree("native_layer_norm", input=x, normalized_shape=shape, weight=None, bias=None, eps=1e-3)
        agree("rms_norm", input=x, normalized_shape=shape)
    agree("layer_norm", input=x, normalized_shape=(5, 2), weight=x[0, 0], bias=x[1, 1])
    agree("rms_norm", input=x, normalized_shape=(5, 2), weight=x[0, 0], eps=0.1)


def test_norms_of_weights():
    v = numbers(4, 3, 2)
    for dim in (0, 1, 2, -2):
        shape = tuple(size if axis == dim % 3 else 1 for axis, size in enumerate(v.shape))
        agree("_weight_norm", v=v, g=numbers(*shape), dim=dim)
    for p, dim in itertools.product((1, 2, 3, INF), (0, -1)):
        agree("renorm", self=v, p=p, dim=dim, maxnorm=1.5)
    for size in (1, 2, 3, 5):
        wanted = torch.nn.functional.local_response_norm(to_torch(v), size, alpha=0.5)
        assert difference(OPERATORS["local_response_norm"](v, size, alpha=0.5), to_numpy(wanted)) is None


# ---------------------------------------------------------------- indices


def test_tables():
    weight, indices = numbers(5, 3), integers(2, 4)
    for found in (indices, indices.astype(np.int32), indices - 1, indices + 1, indices.astype(np.float32)):
        agree("embedding", weight=weight, indices=found)
    for mode, padding, last in itertools.product((0, 1, 2), (None, 0, 2, -1), (False, True)):
        arguments = {
            "weight": weight,
            "indices": indices.reshape(-1),
            "offsets": np.array([0, 3, 3, 8]),
            "mode": mode,
            "include_last_offset": last,
            "padding_idx": padding,
        }
        order = {"scale_grad_by_freq": False, "sparse": False, "per_sample_weights": None}
        wanted = torch.ops.aten.embedding_bag.padding_idx(
            **{key: to_torch(value) for key, value in arguments.items()}, **order
        )
        assert difference(OPERATORS["embedding_bag"](**arguments)[0], to_numpy(wanted[0])) is None


@pytest.mark.parametrize("indices", [
    (np.array([0, -1]),), (np.array([0, 3]),), (None, np.array([0, -1])),
    (np.array([1, 0]), None, np.array([2, 3])),
    (np.array([[0], [1]]), np.array([0, 2])), (np.array([True, False]),), (None, np.eye(3, 4) > 0),
    (np.array([True]),), (np.array(1),), (np.array(1), None, np.array([0, 1])),
    (np.array([0, 1]), np.array([0, 1, 2])),
])  # fmt: skip
def test_indices_of_several_axes(indices):
    array = numbers(2, 3, 4, dtype=np.float64)
    agree("index", "Tensor", self=array, indices=indices)
    for value in (np.array(7.0), numbers(4, dtype=np.float64), np.float32(1)):
        for accumulate in (False, True):
            agree("index_put", self=array, indices=indices, values=np.asarray(value), accumulate=accumulate)


def test_indices_of_one_axis():
    array, index = numbers(4, 3, dtype=np.float64), np.array([2, 0, 2])
    source = numbers(4, 3, dtype=np.float64)
    for dim, found in itertools.product((0, 1, -1, 2), (index, index[:2], index - 1, index + 2)):
        agree("index_select", self=array, dim=dim, index=found)
        agree("index_fill", "int_Scalar", self=array, dim=dim, index=found, value=1.5)
        agree("index_add", self=array, dim=dim, index=found, source=source[:, : found.size], alpha=2)
        agree("gather", self=array, dim=dim, index=np.broadcast_to(found, (2, found.size)).copy())
        for reduce in ("prod", "mean", "amax", "amin", "sum"):
            agree("index_reduce", self=array, dim=dim, index=found, source=source[:3], reduce=reduce)
    agree("index_copy", self=array, dim=1, index=np.array([2, 0]), source=source[:, :2])
    agree("take", self=array, index=np.array([[0, -1], [11, -12]]))
    agree("take", self=array, index=np.array([12]))
    agree("take_along_dim", self=array, indices=np.array([[0, -1, 3]]), dim=0)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
@pytest.mark.parametrize("include", [False, True])
def test_reductions_to_places(dtype, include):
    array, source = (3 * numbers(3, 4)).astype(dtype), (5 * numbers(3, 5)).astype(dtype)
    for index in (integers(3, 5, most=4), integers(2, 3, most=4), integers(4, 5, most=4), integers(0, 5)):
        for reduce in ("sum", "prod", "mean", "amax", "amin", "add"):
            options = {"self": array, "dim": 1, "index": index, "src": source}
            agree("scatter_reduce", "two", **options, reduce=reduce, include_self=include)
            if reduce == "add":
                agree("scatter", "reduce", **options, reduce=reduce)
        agree("scatter_add", **options)
        agree("scatter", "value", self=array, dim=0, index=np.array([[0, 2, 2, 1]]), value=2)
    agree("scatter", "src", self=array, dim=1, index=np.array([[3, 0, 1]]), src=source)
    agree("scatter", "src", self=array, dim=1, index=np.array([[3, 0, 1]]), src=source.astype(np.float64))


def test_masks():
    array, mask = numbers(3, 4), numbers(3, 4) > 0
    agree("masked_select", self=array, mask=mask)
    agree("masked_select", self=array, mask=mask[:, :1])
    agree("masked_scatter", self=array, mask=mask, source=numbers(20))
    agree("masked_scatter", self=array, mask=mask, source=numbers(2))
    agree("nonzero", self=mask)
    agree("nonzero", self=np.array(3.0))


def test_places_in_sorted_rows():
    rows, values = np.array([[1.0, 2, 2, 5], [0, 1, 3, 3]]), np.array([[2.0, 0, NAN], [3, INF, -1]])
    for right, small in itertools.product((False, True), (False, True)):
        options = {"right": right, "out_int32": small}
        agree("searchsorted", "Tensor", sorted_sequence=rows, self=values, **options)
        agree("searchsorted", "Scalar", sorted_sequence=rows[0], self=2, **options)
        agree("bucketize", "Tensor", self=values, boundaries=rows[0], **options)
        agree("bucketize", "Scalar", self=2.5, boundaries=rows[0], **options)
    agree("searchsorted", "Tensor", sorted_sequence=rows, self=values[:1])
    agree("searchsorted", "Tensor", sorted_sequence=rows, self=values, side="left", right=True)


# ---------------------------------------------------------------- recurrent layers

LAYERS = [
    (kind, layers, bidirectional, bias, projection)
    for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    for layers, bidirectional, bias in itertools.product((1, 2), (False, True), (False, True))
    for projection in ((0, 2) if kind == "lstm" else (0,))
]  # fmt: skip


def near(got, wanted):
    """Check results of float32 whose products torch sums in another order."""
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, to_numpy(b), atol=2e-6)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("kind", "layers", "bidirectional", "bias", "projection"), LAYERS)
def test_recurrent_layers(kind, layers, bidirectional, bias, projection, batch_first):
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": batch_first}
    modes = {"rnn_tanh": {"nonlinearity": "tanh"}, "rnn_relu": {"nonlinearity": "relu"}}
    more = {"proj_size": projection} if projection else modes.get(kind, {})
    module = getattr(torch.nn, kind[:4].rstrip("_").upper())(3, 4, bias=bias, **options, **more).eval()
    x, rows = numbers(4, 5, 3) if batch_first else numbers(5, 4, 3), layers * (1 + bidirectional)
    h, c = numbers(rows, 4, projection or 4), numbers(rows, 4, 4)
    hx = (h, c) if kind == "lstm" else h
    params = [to_numpy(weight) for weight in module._flat_weights]
    arguments = {"params": params, "has_biases": bias, "dropout": 0.0, "train": False, **options}
    at = tuple if kind == "lstm" else (lambda state: state)

    def states(state):
        return list(state) if kind == "lstm" else [state]

    with torch.inference_mode():
        y, state = module(to_torch(x), at(to_torch(hx)))
        near(OPERATORS[kind](input=x, hx=hx, **arguments), [y, *states(state)])

        one, first = (x[0] if batch_first else x[:, 0]), [array[:, 0] for array in states(hx)]
        y, state = module(to_torch(one), tuple(to_torch(first)) if kind == "lstm" else to_torch(first[0]))
        found = OPERATORS[kind](input=one, hx=first if kind == "lstm" else first[0], **arguments)
        near(found, [y, *states(state)])

        lengths = np.array([2, 5, 1, 3])
        order = {"batch_first": batch_first, "enforce_sorted": False}
        packed = torch.nn.utils.rnn.pack_padded_sequence(to_torch(x), to_torch(lengths), **order)
        y, state = module(packed, at(to_torch(hx)))
        found = OPERATORS[kind](input=x, hx=hx, lengths=lengths, **arguments)
        near(found[1:], states(state))
        for padding, total in ((0.0, None), (-3.0, 7)):
            unpacked, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first, padding, total)
            near([OPERATORS["pad_steps"](found[0], lengths, batch_first, padding, total)], [unpacked])


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)])
def test_cells(kind, gates):
    for dtype, bias in itertools.product((np.float32, np.float64), (False, True)):
        x, h, c = (numbers(2, size, dtype=dtype) for size in (3, 4, 4))
        biases = {"b_ih": numbers(4 * gates, dtype=dtype), "b_hh": numbers(4 * gates, dtype=dtype)}
        weights = {"w_ih": numbers(4 * gates, 3, dtype=dtype), "w_hh": numbers(4 * gates, 4, dtype=dtype)}
        hx = (h, c) if kind == "lstm" else h
        agree(f"{kind}_cell", input=x, hx=hx, **weights, **(biases if bias else {}))


def test_rows_end_and_are_padded():
    x, lengths = np.arange(1.0, 13).reshape(4, 3), np.array([1, 4, 0])
    pad_steps = OPERATORS["pad_steps"]
    assert pad_steps(x, lengths, padding_value=-1).tolist() == [
        [1, 2, -1],
        [-1, 5, -1],
        [-1, 8, -1],
        [-1, 11, -1],
    ]
    assert pad_steps(x, lengths, total_length=2).tolist() == [[1, 2, 0], [0, 5, 0]]
    assert pad_steps(x.T, lengths, batch_first=True, total_length=5)[1].tolist() == [2, 5, 8, 11, 0]
    for wrong in ([1, 5, 0], [1, 2], [1, -1, 2], [1.0, 2, 3]):
        with pytest.raises(ValueError, match="pad_steps: expected"):
            pad_steps(x, np.array(wrong))


def test_layers_refuse_what_does_not_fit():
    module = torch.nn.GRU(3, 4, bias=False)
    params = [to_numpy(weight) for weight in module._flat_weights]
    usual = {
        "input": numbers(5, 2, 3), "hx": numbers(1, 2, 4), "params": params, "has_biases": False,
        "num_layers": 1, "dropout": 0.0, "train": False, "bidirectional": False, "batch_first": False,
    }  # fmt: skip
    assert OPERATORS["gru"](**usual)[0].shape == (5, 2, 4)
    for wrong in (
        {"input": numbers(5, 2, 4)}, {"hx": numbers(1, 3, 4)}, {"hx": numbers(1, 2, 4, dtype=np.float64)},
        {"has_biases": True}, {"num_layers": 2}, {"params": params[::-1]}, {"lengths": np.array([1, 6])},
        {"input": numbers(0, 2, 3)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="gru: expected"):
            OPERATORS["gru"](**usual | wrong)


# ---------------------------------------------------------------- attention


def test_attention():
    q, k, v = numbers(2, 3, 4, 8), numbers(2, 3, 6, 8), numbers(2, 3, 6, 5)
    blind = np.where(numbers(4, 6) > 0, 0, -INF).astype(np.float32)
    blind[1] = -INF
    for mask in (None, blind, blind == 0, numbers(2, 1, 4, 6), blind.astype(np.float64)):
        for scale in (None, 0.3):
            agree("scaled_dot_product_attention", query=q, key=k, value=v, attn_mask=mask, scale=scale)
        for is_causal in (False, True):
            options = {"attn_mask": mask, "is_causal": is_causal}
            if mask is None or (mask.dtype == np.float32 and not is_causal):
                agree("_scaled_dot_product_flash_attention_for_cpu", query=q, key=k, value=k, **options)
    agree("scaled_dot_product_attention", query=q, key=k, value=v, is_causal=True)
    agree("scaled_dot_product_attention", query=q, key=k[:, :1], value=v[:, :1], enable_gqa=True)
    agree("scaled_dot_product_attention", query=q, key=k, value=v[:, :, :5])


def calls_agree(module, *args, **kwargs):
    """Run a module, and check every operator that it calls. Return their names."""
    recorder = Recorder()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    with torch.inference_mode(), recorder:
        module.eval()(*args, **kwargs)
    assert not recorder.differences, recorder.differences
    return set(recorder.agreed)


PADDING = np.array([[False, False, False, True], [False, False, False, False]])


@pytest.mark.parametrize("kwargs", [
    {}, {"need_weights": False}, {"average_attn_weights": False}, {"key_padding_mask": PADDING},
    {"key_padding_mask": np.ones_like(PADDING)}, {"attn_mask": np.zeros((4, 4), np.float32)},
])  # fmt: skip
def test_multi_head_attention(kwargs):
    x = to_torch(numbers(2, 4, 8))
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    names = calls_agree(module, x, x, x, **{key: to_torch(value) for key, value in kwargs.items()})
    assert ("_native_multi_head_attention" in names) == ("attn_mask" not in kwargs)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_of_transformers(norm_first, activation):
    x = to_torch(numbers(2, 4, 8))
    options = {"batch_first": True, "norm_first": norm_first, "activation": activation}
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, **options)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(4)
    for kwargs in ({}, {"src_mask": causal}, {"src_key_padding_mask": to_torch(PADDING)}):
        assert "_transformer_encoder_layer_fwd" in calls_agree(layer, x, **kwargs)
    calls_agree(torch.nn.TransformerDecoderLayer(8, 2, 16, **options), x, x)


# ---------------------------------------------------------------- Fourier transforms


@pytest.mark.parametrize("name", ["fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft"])
def test_transforms_of_an_axis(name):
    real = numbers(3, 6, dtype=np.float64)
    for array in (real, real.astype(np.float32), real + 1j * real[::-1], integers(3, 6)):
        for n, dim, norm in itertools.product((None, 1, 4, 9), (-1, 0), (None, "ortho", "forward")):
            agree(name, self=array, n=n, dim=dim, norm=norm)
    for n, dim, norm in ((0, -1, None), (None, 2, None), (None, -1, "none")):
        agree(name, self=real, n=n, dim=dim, norm=norm)


def test_transforms_of_two_axes():
    real = numbers(2, 5, 6, dtype=np.float64)
    for name in ("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2"):
        for array in (real, real + 1j * real[::-1]):
            for s, dim, norm in ((None, (-2, -1), None), ((4, 7), (0, 1), "ortho"), ((3, -1), (1, 2), None)):
                agree(name, self=array, s=s, dim=dim, norm=norm)
    for number, onesided in itertools.product((0, 1, 2), (False, True)):
        agree("_fft_r2c", self=real, dim=(0, 2), normalization=number, onesided=onesided)
        agree("_fft_c2c", self=real + 1j * real, dim=(1, 2), normalization=number, forward=onesided)
        agree("_fft_c2r", self=real + 1j * real, dim=(2,), normalization=number, last_dim_size=10 + onesided)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("onesided", [False, True])
def test_frames(center, normalized, onesided):
    signal = numbers(2, 40, dtype=np.float64)
    window = np.hanning(8) + 0.1
    for n_fft, hop, width in ((8, 2, 8), (8, None, 8), (10, 3, 8), (9, 4, 8)):
        options = {"n_fft": n_fft, "hop_length": hop, "win_length": width, "window": window}
        options |= {"center": center, "normalized": normalized, "onesided": onesided}
        for array, is_complex in itertools.product((signal, signal[0]), (True, False)):
            agree("stft", "center", self=array, **options, return_complex=is_complex)
        frames = OPERATORS["stft"](signal, **options, return_complex=True)
        for length in (None, 20, 33, 50):
            agree("istft", self=frames, **options, length=length)
    agree("stft", "center", self=signal, n_fft=50, center=center, return_complex=True)
    agree("stft", self=signal, n_fft=8, window=window, return_complex=True)


def test_frequencies():
    for n, d in ((8, 1.0), (9, 0.25)):
        agree("fft_fftfreq", n=n, d=d)
        agree("fft_rfftfreq", n=n, d=d)


def test_complex_numbers():
    array = numbers(3, 2) + 1j * numbers(3, 2)[::-1]
    for name in ("view_as_real", "real", "imag", "_conj", "conj", "angle", "resolve_conj", "resolve_neg"):
        agree(name, self=array)
    for part in (numbers(3, 2), numbers(3, 2, dtype=np.float64), integers(3, 2)):
        agree("view_as_complex", self=part)
        agree("complex", real=numbers(3, 2), imag=part)
        agree("polar", abs=numbers(3, 2), angle=part)
