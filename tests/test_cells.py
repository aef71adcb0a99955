"""RNNCell, GRUCell and LSTMCell: called as torch's, and the same numbers."""

import pickle
import re

import numpy as np
import pytest
from helpers import assert_close, assert_states_close, make_layer, random_spec, random_tensors
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference

KINDS = ("RNNCell", "GRUCell", "LSTMCell")
CELLS = {"RNNCell": "rnn_relu", "GRUCell": "gru", "LSTMCell": "lstm"}


def make_cell(rng, kind, input_size=5, hidden_size=7, bias=True, **options):
    """A cell with random weights, and its spec and weights by a layer's names."""
    spec = random_spec(CELLS[kind], input_size, hidden_size, bias=bias)
    tensors = random_tensors(rng, spec)
    if kind == "RNNCell":
        options["nonlinearity"] = spec.nonlinearity
    keys = {f"dec.{name.removesuffix('_l0')}": array for name, array in tensors.items()}
    return getattr(fastrnn, kind).from_state_dict(keys, "dec", **options), spec, tensors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ((), (1,), (6,)))
def test_cell_equals_reference(rng, kind, rows):
    cell, spec, tensors = make_cell(rng, kind, precision="float64")
    step = reference.STEPS[spec.kind]
    x = rng.standard_normal((*rows, 5))
    h, c = rng.standard_normal((2, *rows, 7))
    gates_x = x @ tensors["weight_ih_l0"].T + tensors["bias_ih_l0"]
    gates_h = h @ tensors["weight_hh_l0"].T + tensors["bias_hh_l0"]
    wanted_h, wanted_c = step(gates_x, gates_h, h, c, spec.nonlinearity)
    got = cell(x, (h, c) if kind == "LSTMCell" else h)
    assert_states_close(got, (wanted_h, wanted_c) if kind == "LSTMCell" else wanted_h, 1e-13)


@given(data=st.data())
def test_any_cell_equals_torch(data):
    torch = pytest.importorskip("torch")
    draw = data.draw
    kind = draw(st.sampled_from(KINDS))
    options = {"nonlinearity": draw(st.sampled_from(("tanh", "relu")))} if kind == "RNNCell" else {}
    torch.manual_seed(draw(st.integers(0, 2**31)))
    sizes = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    module = getattr(torch.nn, kind)(*sizes, bias=draw(st.booleans()), **options).double()
    cell = fastrnn.from_torch(module)
    rows = draw(st.sampled_from(((), (0,), (1,), (7,), (33,))))
    x = torch.randn(*rows, sizes[0]).double()
    state = None
    if draw(st.booleans()):
        state = torch.randn(*rows, sizes[1]).double()
        state = (state, state * 2) if kind == "LSTMCell" else state
    with torch.no_grad():
        assert_states_close(cell(x, state), module(x, state), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_a_cell_are_those_of_its_layer(rng, kind):
    """By hand, in a stream and in a pool: the same bits."""
    cell, spec, tensors = make_cell(rng, kind)
    layer = make_layer(spec, tensors)
    x = rng.standard_normal((6, 3, 5)).astype(np.float32)
    wanted, after = layer(x)
    state = None
    for row, y in zip(x, wanted, strict=True):
        state = cell(row, state)
        np.testing.assert_array_equal(state[0] if kind == "LSTMCell" else state, y)
    last = state if kind == "LSTMCell" else (state,)
    for one, other in zip(last, after if kind == "LSTMCell" else (after,), strict=True):
        np.testing.assert_array_equal(one, other[0])
    np.testing.assert_array_equal(cell.stream(3).run(x), wanted)
    pool = cell.pool()
    ids = [pool.open() for _ in range(3)]
    np.testing.assert_array_equal(np.stack([pool.step(ids, row) for row in x]), wanted)


def test_cell_survives_pickling_and_shows_itself(rng):
    for kind in KINDS:
        cell, _, _ = make_cell(rng, kind, precision="float64", backend="blas")
        again = pickle.loads(pickle.dumps(cell))
        x = rng.standard_normal((2, 5))
        assert_states_close(again(x), cell(x), 0)
        more = "nonlinearity='relu', " if kind == "RNNCell" else ""
        assert repr(again) == f"{kind}(5, 7, {more}precision='float64')"


def test_wrong_arguments_of_cells_are_refused(rng):
    cell, _, _ = make_cell(rng, "LSTMCell")
    for x, hx, words in (
        (np.ones((2, 4)), None, "LSTMCell: expected input of shape (B, 5) or (5,), got (2, 4)."),
        (np.ones((3, 2, 5)), None, "got (3, 2, 5). fastrnn.LSTM takes whole sequences."),
        (np.ones((2, 5)), np.ones((2, 7)), "state to be a pair (h, c)"),
        (np.ones((2, 5)), (np.ones((2, 7)), np.ones(7)), "c of shape (2, 7), got (7,)"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            cell(x, hx)
    with pytest.raises(TypeError, match="trained weights"):
        fastrnn.GRUCell(5, 7)
    with pytest.raises(fastrnn.WeightError, match="expected the weights of LSTM, got those of GRU"):
        fastrnn.LSTMCell.from_state_dict(random_tensors(rng, random_spec("gru", 5, 7)))
    for options in ({"num_layers": 2}, {"bidirectional": True}):
        spec = random_spec("gru", 5, 7, **options)
        with pytest.raises(fastrnn.WeightError, match="the weights of one cell"):
            fastrnn.GRUCell.from_state_dict(random_tensors(rng, spec))


def test_a_sequential_takes_no_cell(rng):
    """In torch a cell takes (B, I) for a batch; in a Sequential that is a sequence."""
    cell, _, _ = make_cell(rng, "GRUCell")
    with pytest.raises(ValueError, match=r"over sequences, got GRUCell\(5, 7\).*fastrnn.GRU takes"):
        fastrnn.Sequential(cell)


def test_a_cell_gives_arrays_of_its_dtype(rng):
    cell, _, _ = make_cell(rng, "GRUCell")
    h = cell([[1, 2, 3, 4, 5]])
    assert h.dtype == np.float32
    assert_close(h, cell(np.arange(1.0, 6.0))[None], 0)
