"""What layers take and refuse: weights, arguments, and the messages."""

import pickle
import re

import numpy as np
import pytest
from helpers import random_layer, random_spec, random_tensors

import fastrnn


@pytest.fixture
def weights(rng):
    """The state dict of a small LSTM among other modules."""
    spec = random_spec("lstm", 3, 4, 2)
    tensors = {f"encoder.lstm.{name}": a for name, a in random_tensors(rng, spec).items()}
    return {**tensors, "fc.weight": np.ones((2, 4)), "fc.bias": np.zeros(2)}


# ---------------------------------------------------------------- from_state_dict


def test_prefix_may_end_with_a_dot(weights):
    for prefix in ("encoder.lstm", "encoder.lstm."):
        layer = fastrnn.LSTM.from_state_dict(weights, prefix)
        assert (layer.input_size, layer.hidden_size, layer.num_layers) == (3, 4, 2)
        assert (layer.bias, layer.bidirectional, layer.proj_size) == (True, False, 0)


def test_keys_of_a_cell_make_one_layer(rng):
    spec = random_spec("gru", 3, 4)
    tensors = {name.removesuffix("_l0"): a for name, a in random_tensors(rng, spec).items()}
    assert fastrnn.GRU.from_state_dict(tensors).num_layers == 1


def test_weights_are_copied(rng):
    spec = random_spec("gru", 3, 4)
    tensors = random_tensors(rng, spec)
    layer = fastrnn.GRU.from_state_dict(tensors, precision="float64")
    x = rng.standard_normal((2, 3))
    before = layer(x)[0]
    for array in tensors.values():
        array[...] = 0
    np.testing.assert_array_equal(layer(x)[0], before)


@pytest.mark.parametrize(
    "cls, prefix, change, words",
    (
        ("GRU", "encoder.lstm", {}, ["expected the weights of GRU, got those of LSTM", "fastrnn.LSTM"]),
        ("LSTM", "encoder", {}, ["no \"weight_ih_l0\"", "encoder.lstm"]),
        ("LSTM", "decoder", {}, ["keys that begin with \"decoder.\"", "encoder.lstm"]),
        ("LSTM", "", {}, ["encoder.lstm"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.bias_hh_l1": None}, ["bias_hh_l1 is missing"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.weight_hh_l1": None}, ["weight_hh_l1 is missing"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.extra": np.ones(1)}, ["extra is not one of its keys"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.weight_ih_l3": np.ones((16, 4))},
         ["weight_ih_l2 is missing"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.weight_ih_l900000000": np.ones((16, 4))},
         ["weight_ih_l900000000 is not one of its keys"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.weight_ih_l1": np.ones((16, 5))},
         ["weight_ih_l1 has the shape (16, 5) in place of (16, 4)"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.weight_hh_l0": np.ones((15, 4))}, ["1, 3 or 4 times"]),
        ("LSTM", "encoder.lstm", {"encoder.lstm.weight_hh_l0": np.ones(16)}, ["to be a matrix"]),
        ("Linear", "fc", {"fc.bias": np.ones(3)}, ["bias of shape (2,)", "(3,)"]),
        ("Linear", "fc", {"fc.weight": None}, ["weight is missing"]),
        ("Linear", "fc", {"fc.scale": np.ones(3)}, ["scale is not one of its keys"]),
        ("Embedding", "fc", {}, ["bias is not one of its keys"]),
    ),
)  # fmt: skip
def test_wrong_weights_are_named(weights, cls, prefix, change, words):
    weights = {key: change.get(key, array) for key, array in {**weights, **change}.items()}
    weights = {key: array for key, array in weights.items() if array is not None}
    with pytest.raises(fastrnn.WeightError) as caught:
        getattr(fastrnn, cls).from_state_dict(weights, prefix)
    for word in words:
        assert word in str(caught.value)


def test_all_problems_come_at_once(weights):
    del weights["encoder.lstm.bias_ih_l1"]
    weights["encoder.lstm.more"] = np.ones(2)
    with pytest.raises(fastrnn.WeightError, match=r"bias_ih_l1 is missing; more is not"):
        fastrnn.LSTM.from_state_dict(weights, "encoder.lstm")


def test_layers_are_not_made_by_sizes():
    for cls in (fastrnn.LSTM, fastrnn.RNN, fastrnn.Linear, fastrnn.Embedding):
        with pytest.raises(TypeError, match=f"{cls.__name__}.from_state_dict"):
            cls(3, 4)


def test_numbers_and_names_are_checked(weights):
    with pytest.raises(TypeError, match="prefix to be a str, got 5"):
        fastrnn.LSTM.from_state_dict(weights, 5)
    with pytest.raises(TypeError, match="every key of state_dict to be a str, got 1"):
        fastrnn.LSTM.from_state_dict({1: 2})
    with pytest.raises(TypeError, match="p to be a number"):
        fastrnn.Dropout("abc")
    for eps in (10**400, float("nan")):
        with pytest.raises((TypeError, ValueError), match="eps to be"):
            fastrnn.LayerNorm(3, eps=eps)
    weights["encoder.lstm.weight_hh_l" + "1" * 5000] = np.ones(2)
    with pytest.raises(fastrnn.WeightError, match="is not one of its keys"):
        fastrnn.LSTM.from_state_dict(weights, "encoder.lstm")


def test_masked_arrays_are_refused(rng):
    with pytest.raises(TypeError, match="a plain array, got a masked one"):
        random_layer(rng)(np.ma.masked_equal(np.ones((3, 5)), 1))


def test_state_dict_must_be_a_mapping_of_numbers(weights):
    with pytest.raises(TypeError, match="a mapping of names to arrays, got str"):
        fastrnn.LSTM.from_state_dict("weights.pt")
    weights["encoder.lstm.bias_ih_l0"] = np.array(["a"] * 16)
    with pytest.raises(TypeError, match="bias_ih_l0 to hold real numbers"):
        fastrnn.LSTM.from_state_dict(weights, "encoder.lstm")


@pytest.mark.parametrize(
    "options, error, words",
    (
        ({"precision": "int4"}, ValueError, '"bfloat16x3" and "int8", got \'int4\''),
        ({"precision": np.int8}, ValueError, 'got the class int8. Write precision="int8".'),
        (
            {"precision": {"hidden": "int8"}},
            ValueError,
            '"input", "recurrent" and "projection", got \'hidden\'',
        ),
        ({"precision": {"input": "float64"}}, ValueError, "no float64 in a precision of input alone"),
        (
            {"precision": {"input": 8}},
            ValueError,
            'precision of input to be one of "float32", "bfloat16", "bfloat16x2",',
        ),
        ({"precision": np.float32}, ValueError, 'got the class float32. Write precision="float32".'),
        ({"precision": np.dtype("f8")}, ValueError, 'got the dtype float64. Write precision="float64".'),
        ({"precision": int}, ValueError, "got the class int."),
        ({"backend": "cuda"}, ValueError, 'backend to be one of "auto", "simd" and "blas"'),
        ({"threads": 0}, ValueError, "threads to be at least 1, got 0"),
        ({"threads": 1.5}, TypeError, "threads to be a whole number"),
        ({"batch_first": 1}, TypeError, "batch_first to be True or False"),
    ),
)
def test_wrong_options_are_refused(weights, options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        fastrnn.LSTM.from_state_dict(weights, "encoder.lstm", **options)


def test_rnn_nonlinearity_is_checked(rng):
    tensors = random_tensors(rng, random_spec("rnn_tanh", 3, 4))
    with pytest.raises(ValueError, match='"tanh" and "relu"'):
        fastrnn.RNN.from_state_dict(tensors, nonlinearity="sigmoid")


# ---------------------------------------------------------------- calls of recurrent layers


@pytest.mark.parametrize(
    "arguments, words",
    (
        ({"x": np.ones((2, 3, 4))},
         "LSTM: expected x of shape (T, B, 5) or, unbatched, (T, 5), got (2, 3, 4). input_size is 5"),
        ({"x": np.ones(5)}, "got (5,)"),
        ({"x": np.ones((1, 2, 3, 5))}, "got (1, 2, 3, 5)"),
        ({"x": np.ones((0, 2, 5))}, "at least one time step and one row"),
        ({"x": np.ones((2, 0, 5))}, "at least one time step and one row"),
        ({"state": np.ones((1, 2, 7))}, "state to be a pair (h, c)"),
        ({"state": (np.ones((1, 2, 7)),)}, "state to be a pair (h, c), got 1 of them"),
        ({"state": (np.ones((1, 2, 7)), np.ones((1, 3, 7)))}, "c of shape (1, 2, 7), got (1, 3, 7)"),
        ({"state": (np.ones((2, 7)), np.ones((2, 7)))}, "h of shape (1, 2, 7), got (2, 7)"),
        ({"lengths": [4]}, "lengths of shape (2,), got (1,)"),
        ({"lengths": [0, 4]}, "lengths from 1 to 4, got 0 for row 0"),
        ({"lengths": [4, 5]}, "lengths from 1 to 4, got 5 for row 1"),
        ({"lengths": [-1, 2]}, "got -1 for row 0"),
        ({"out": np.ones((4, 2, 8))}, "out to be a C-contiguous float64 array of shape (4, 2, 7)"),
        ({"out": np.ones((4, 2, 7), np.float32)}, "got float32 of shape (4, 2, 7)"),
        ({"out": np.ones((2, 4, 7)).swapaxes(0, 1)}, "got one with strides"),
    ),
)  # fmt: skip
def test_wrong_arguments_are_refused(rng, arguments, words):
    layer = random_layer(rng, "LSTM")
    arguments = {"x": np.ones((4, 2, 5)), **arguments}
    with pytest.raises(ValueError, match=re.escape(words)):
        layer(**arguments)


@pytest.mark.parametrize(
    "arguments, words",
    (
        ({"x": np.ones((4, 2, 5), complex)}, "x to hold real numbers, got an array of complex128"),
        ({"x": [["a"]]}, "x to hold real numbers"),
        ({"x": None}, "x to hold real numbers"),
        ({"lengths": [1.0, 2.0]}, "lengths to be whole numbers"),
        ({"out": [1.0]}, "got list. It is written in place, which only a NumPy array can be."),
    ),
)
def test_arguments_of_a_wrong_type_are_refused(rng, arguments, words):
    layer = random_layer(rng, "LSTM")
    with pytest.raises(TypeError, match=re.escape(words)):
        layer(**{"x": np.ones((4, 2, 5)), **arguments})


def test_out_must_be_apart_and_writable(rng):
    layer = random_layer(rng, "GRU", input_size=7)
    x = rng.standard_normal((4, 2, 7))
    with pytest.raises(ValueError, match="apart from the inputs"):
        layer(x, out=x)
    out = np.empty((4, 2, 7))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        layer(x, out=out)


def test_lengths_need_a_batch(rng):
    with pytest.raises(ValueError, match="a batch beside lengths"):
        random_layer(rng)(np.ones((4, 5)), lengths=[4])


def test_ragged_lists_are_refused(rng):
    with pytest.raises(ValueError, match="nested lists of unequal lengths"):
        random_layer(rng)([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("dtype", (np.float16, np.float64, np.int32, np.uint8, bool, ">f4"))
def test_other_real_types_are_converted(rng, dtype):
    layer = random_layer(rng, precision="float32")
    x = (rng.standard_normal((4, 2, 5)) * 2).astype(dtype)
    y, _ = layer(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, layer(x.astype(np.float32))[0])


def test_lists_are_taken(rng):
    layer = random_layer(rng, "GRU", input_size=2, hidden_size=3)
    y, h = layer([[1, 2], [3, 4]], [[0, 0, 0]])
    assert y.shape == (2, 3) and h.shape == (1, 3)


# ---------------------------------------------------------------- the other layers


def test_token_out_of_range_is_named():
    layer = fastrnn.Embedding.from_state_dict({"weight": np.eye(4)})
    for tokens, words in (
        ([[0, 4]], "tokens from 0 to 3, got 4 at index (0, 1)"),
        ([-1], "got -1 at index (0,)"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            layer(tokens)
        with pytest.raises(ValueError, match=re.escape(words)):
            fastrnn.OneHot(4)(tokens)
    with pytest.raises(TypeError, match="whole numbers"):
        layer([0.5])
    assert layer(np.zeros((0, 3), int)).shape == (0, 3, 4)


@pytest.mark.parametrize("dtype", (np.int8, np.int32, np.uint16, np.uint64, ">i8"))
def test_tokens_may_be_integers_of_any_dtype(rng, dtype):
    weight = rng.standard_normal((5, 3))
    tokens = np.array([[4, 0], [1, 1]]).astype(dtype)
    embedding = fastrnn.Embedding.from_state_dict({"weight": weight}, precision="float64")
    np.testing.assert_array_equal(embedding(tokens), weight[tokens.astype(int)])
    np.testing.assert_array_equal(embedding(tokens[0, 0]), weight[4])
    np.testing.assert_array_equal(fastrnn.OneHot(5)(tokens), np.eye(5)[tokens.astype(int)])


def test_one_hot_is_one_at_the_token():
    np.testing.assert_array_equal(fastrnn.OneHot(3)([[2, 0]]), [[[0, 0, 1], [1, 0, 0]]])


def test_last_takes_each_rows_last_step(rng):
    x = rng.standard_normal((5, 3, 2))
    last = fastrnn.Last()
    np.testing.assert_array_equal(last(x), x[-1])
    np.testing.assert_array_equal(last(x, lengths=[1, 5, 3]), x[[0, 4, 2], [0, 1, 2]])
    np.testing.assert_array_equal(
        last(x.swapaxes(0, 1), lengths=[1, 5, 3], batch_first=True), x[[0, 4, 2], [0, 1, 2]]
    )
    np.testing.assert_array_equal(last(x[:, 0]), x[-1, 0])
    with pytest.raises(ValueError, match="x of shape"):
        last(np.ones(3))


def test_sigmoid_and_softmax_are_exact_at_the_ends():
    x = np.array([-1000.0, -40.0, 0.0, 40.0, 1000.0])
    np.testing.assert_allclose(fastrnn.Sigmoid()(x), [0, 4.248354255291589e-18, 0.5, 1, 1], rtol=1e-15)
    np.testing.assert_array_equal(fastrnn.Softmax()(np.array([0.0, 1000.0])), [0, 1])
    np.testing.assert_array_equal(fastrnn.LogSoftmax()(np.array([0.0, 1000.0])), [-1000, 0])
    assert np.isnan(fastrnn.Softmax()(np.array([np.inf, 1.0]))[0])
    assert np.isnan(fastrnn.ReLU()(np.array([np.nan])))[0]


def test_linear_takes_any_leading_axes(rng):
    weight, bias = rng.standard_normal((4, 6)), rng.standard_normal(4)
    layer = fastrnn.Linear.from_state_dict({"weight": weight, "bias": bias}, precision="float64")
    for shape in ((6,), (3, 6), (2, 3, 6), (0, 6)):
        x = rng.standard_normal(shape)
        np.testing.assert_allclose(layer(x), x @ weight.T + bias, rtol=0, atol=1e-13)
    x = rng.standard_normal((6, 5, 2)).T
    np.testing.assert_allclose(layer(x), x @ weight.T + bias, rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match=re.escape("x of shape (..., 6), got (3, 5)")):
        layer(np.ones((3, 5)))


def test_softmax_checks_its_axis():
    with pytest.raises(ValueError, match="an axis 2"):
        fastrnn.Softmax(dim=2)(np.ones((2, 3)))
    with pytest.raises(TypeError, match="whole number"):
        fastrnn.Softmax(dim=None)


# ---------------------------------------------------------------- pickles of layers


@pytest.mark.parametrize("kind", ("RNN", "GRU", "LSTM"))
def test_layer_survives_pickling(rng, kind):
    layer = random_layer(rng, kind, num_layers=2, batch_first=True)
    again = pickle.loads(pickle.dumps(layer))
    x = rng.standard_normal((2, 4, 5))
    np.testing.assert_array_equal(layer(x)[0], again(x)[0])
    assert repr(again) == repr(layer)


def test_repr_tells_what_is_not_usual(rng):
    layer = random_layer(rng, "RNN", bidirectional=True, batch_first=True)
    assert repr(layer) == "RNN(5, 7, bidirectional=True, batch_first=True, precision='float64')"
