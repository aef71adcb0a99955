"""The drivers against the NumPy reference: every option at once, in float64."""

import sysconfig
import tracemalloc

import numpy as np
import pytest
from helpers import (
    CELLS,
    arrays_of,
    assert_close,
    assert_states_close,
    make_layer,
    random_layer,
    random_spec,
    random_state,
    random_tensors,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrnn.reference import recurrent_reference

TOLERANCE = 1e-12


def run_reference(spec, tensors, x, state, lengths=None):
    y, h, c = recurrent_reference(spec, tensors, x, *arrays_of(state), lengths=lengths)
    return y, h if c is None else (h, c)


@settings(max_examples=150)
@given(data=st.data())
def test_layer_equals_reference(data):
    draw = data.draw
    spec = random_spec(
        draw(st.sampled_from(sorted(CELLS))),
        input_size=draw(st.integers(1, 9)),
        hidden_size=draw(st.integers(1, 20)),
        num_layers=draw(st.integers(1, 4)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    tensors = random_tensors(rng, spec)
    steps, batch_size = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    x = rng.standard_normal((steps, batch_size, spec.input_size))
    state = random_state(rng, spec, batch_size)
    lengths = None
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(1, steps), min_size=batch_size, max_size=batch_size))
    wanted, wanted_state = run_reference(spec, tensors, x, state, lengths)
    for backend in ("auto", "blas"):
        layer = make_layer(spec, tensors, precision="float64", backend=backend)
        out = np.full(wanted.shape, np.nan)
        y, after = layer(x, state, lengths=lengths, out=out)
        assert_close(y, wanted, TOLERANCE)
        assert_states_close(after, wanted_state, TOLERANCE)


@pytest.mark.parametrize("backend", ("auto", "blas"))
@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize("cell", CELLS)
def test_long_sequence_crosses_blocks(rng, cell, bidirectional, backend):
    """Hundreds of steps are several blocks of time; states must pass from one to the next."""
    spec = random_spec(cell, 3, 70, 2, bidirectional)
    tensors = random_tensors(rng, spec)
    x = rng.standard_normal((700, 2, 3))
    lengths = [431, 700]
    state = random_state(rng, spec, 2)
    layer = make_layer(spec, tensors, precision="float64", backend=backend)
    for given_lengths in (None, lengths):
        wanted, wanted_state = run_reference(spec, tensors, x, state, given_lengths)
        y, after = layer(x, state, lengths=given_lengths)
        assert_close(y, wanted, TOLERANCE)
        assert_states_close(after, wanted_state, TOLERANCE)


@pytest.mark.parametrize("backend", ("auto", "blas"))
@pytest.mark.parametrize("is_both_ways", (False, True))
@pytest.mark.parametrize(
    "view",
    (
        "reversed", "every_second", "fortran", "swapped", "column", "readonly", "repeated", "windows",
        "field",
    ),
)  # fmt: skip
def test_layer_takes_any_view(rng, view, is_both_ways, backend):
    """Strides of every kind give what a plain copy gives."""
    layer = random_layer(rng, "GRU", bidirectional=is_both_ways, input_size=4, backend=backend)
    base = rng.standard_normal((40, 6, 4))
    fields = np.zeros((40, 6), [("before", np.uint8), ("x", np.float64, 4)])
    fields["x"] = base
    x = {
        "repeated": np.broadcast_to(base[0, 0], base.shape),  # rows lie on one another
        "windows": np.lib.stride_tricks.sliding_window_view(base.ravel(), 4)[:240].reshape(40, 6, 4),
        "field": fields["x"],  # of no whole number of elements from row to row
        "reversed": base[::-1, ::-1],
        "every_second": base[::2],
        "fortran": np.asfortranarray(base),
        "swapped": base.swapaxes(0, 1),
        "column": rng.standard_normal((40, 6, 8))[..., 2:6],
        "readonly": base.copy(),
    }[view]
    if view == "readonly":
        x.flags.writeable = False
    before = x.copy()
    wanted, wanted_state = layer(np.array(x, order="C"))
    y, after = layer(x)
    assert_close(y, wanted, 1e-14)
    assert_states_close(after, wanted_state, 1e-14)
    np.testing.assert_array_equal(x, before)


def test_call_leaves_its_arguments_alone(rng):
    layer = random_layer(rng, "LSTM")
    x, state = rng.standard_normal((5, 2, 5)), random_state(rng, layer.shape, 2)
    copies = [array.copy() for array in (x, *state)]
    layer(x, state, lengths=[5, 2])
    for array, copy in zip((x, *state), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_output_never_shares_memory_with_states(rng):
    layer = random_layer(rng, "LSTM")
    x = rng.standard_normal((1, 1, 5))
    y, (h, c) = layer(x)
    assert not any(np.shares_memory(a, b) for a, b in ((y, h), (y, c), (h, c)))


def test_held_states_are_never_written_again(rng):
    """With out= the arrays of states are used again, but only once nobody holds them."""
    layer = random_layer(rng, "LSTM")
    out = np.empty((3, 2, 7))
    held = []
    for _ in range(30):
        x = rng.standard_normal((3, 2, 5))
        wanted = layer(x)[1]
        held.append((wanted, layer(x, out=out)[1]))
        view = layer(x, out=out)[1][0][:, 0]
        held.append(((wanted[0][:, 0],), (view,)))
    for wanted, got in held:
        for one, other in zip(wanted, got, strict=True):
            np.testing.assert_array_equal(one, other)


def test_changed_states_are_not_used_again(rng):
    """What a caller did to a state's array before letting it go stays with that array."""
    layer = random_layer(rng, "GRU")
    x, out = rng.standard_normal((3, 2, 5)), np.empty((3, 2, 7))
    wanted = layer(x)[1]
    state = layer(x, out=out)[1]
    state.flags.writeable = False
    del state
    np.testing.assert_array_equal(layer(x, out=out)[1], wanted)


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="states are new arrays on a free-threaded Python",
)
@pytest.mark.parametrize("backend", ("auto", "blas"))
@pytest.mark.parametrize("kind", ("RNN", "GRU", "LSTM"))
@pytest.mark.parametrize("lengths", (None, [200, 150, 1, 77]))
def test_steady_call_with_out_allocates_no_array(rng, kind, lengths, backend):
    layer = random_layer(rng, kind, backend=backend, hidden_size=64, bidirectional=True, num_layers=2)
    x = rng.standard_normal((200, 4, 5))
    lengths = None if lengths is None else np.array(lengths)
    out = np.empty((200, 4, 128))
    smallest = 2 * 2 * 4 * 64 * 8  # the bytes of a state
    for _ in range(3):
        _, state = layer(x, lengths=lengths, out=out)
    tracemalloc.start()
    try:
        layer(x, state, lengths=lengths, out=out)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        _, state = layer(x, state, lengths=lengths, out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < smallest / 2
    assert after - before < smallest / 2


@pytest.mark.parametrize("kind, bidirectional, num_layers", (("LSTM", False, 2), ("GRU", True, 1)))
def test_memory_does_not_grow_with_time(rng, kind, bidirectional, num_layers):
    """A million steps take the memory of ten thousand, besides input and output."""
    peaks = []
    for steps in (10_000, 1_000_000):
        layer = random_layer(
            rng, kind, 1, 4, precision="float32", bidirectional=bidirectional, num_layers=num_layers
        )
        x = np.zeros((steps, 1, 1), np.float32)
        out = np.empty((steps, 1, layer.features_out), np.float32)
        tracemalloc.start()
        try:
            layer(x, out=out)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] <= peaks[0] + 4096


def test_nan_in_weights_passes_through(rng):
    layer = random_layer(rng, "LSTM", bias=True)
    tensors = {name: array.copy() for name, array in layer.tensors.items()}
    tensors["weight_hh_l0"][0, 0] = np.nan
    broken = type(layer).from_state_dict(tensors, precision="float64")
    y, (h, c) = broken(rng.standard_normal((4, 2, 5)))
    assert np.isnan(y[0, :, 0]).all() and not np.isnan(y[0, :, 1]).any()
    assert np.isnan(y[3]).all() and np.isnan(h).all() and np.isnan(c[0, :, 0]).all()


def test_infinite_input_saturates_without_warning(rng):
    layer = random_layer(rng, "LSTM")
    y, _ = layer(np.full((2, 1, 5), 1e300))
    assert (np.abs(y) <= 1).all()
