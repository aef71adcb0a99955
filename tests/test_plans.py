"""Plans: what is decided for a call before it runs, field by field.

That every plan gives the same bits is in test_threads.py.
"""

import numpy as np
import pytest
from helpers import random_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrnn.engine import backends

needs_simd = pytest.mark.skipif(
    not backends.SIMD_TABLES, reason="on blas a cell is one part, and no rows crowd"
)
BETWEEN, OUTSIDE = 0, 1


def planned(layer, T, B, threads=1, **options):
    """The plan of T steps of B rows, if that many threads are free and sharing costs little."""
    is_ragged = options.pop("is_ragged", "lengths" in options)
    return layer._operator.plan(T, B, is_ragged, threads, 150, 1, **options)


def divided(rng, division, threads, kind="LSTM", hidden_size=64, **options):
    layer = random_layer(rng, kind, options.pop("input_size", 16), hidden_size, "float32", **options)
    layer._divide(division, threads)
    return layer


def blocks_of(shape):
    """The steps of each block."""
    return [min(shape["block"], shape["T"] - begin) for begin in range(0, shape["T"], shape["block"])]


# ---------------------------------------------------------------- slices and phases


def test_one_thread_does_everything(rng):
    layer = random_layer(rng, "LSTM", 16, 512, "float32", num_layers=2, bidirectional=True)
    plan = planned(layer, 100, 8)
    assert (plan["division"], plan["slices"], plan["phases"], plan["first"]) == ("alone", 1, 1, None)
    assert len(plan["passes"]) == 1


@pytest.mark.parametrize("size, is_counted", [(16, False), (512, True)])
def test_a_caller_is_counted_if_it_works_alone_for_long(rng, size, is_counted):
    layer = random_layer(rng, "LSTM", size, size, "float32")
    assert planned(layer, 3, 1)["is_counted"] == is_counted
    layer._divide("rows", 2)
    assert not planned(layer, 3, 8, 2)["is_counted"]


@pytest.mark.parametrize("slices", (2, 3, 5))
def test_slices_by_rows_have_all_rows_evenly(rng, slices):
    plan = planned(divided(rng, "rows", slices), 300, 33, slices)
    assert (plan["division"], plan["slices"]) == ("rows", slices)
    assert plan["first"][0] == 0 and plan["first"][-1] == 33
    rows = np.diff(plan["first"])
    assert [passes["shape"]["B"] for passes in plan["passes"]] == rows.tolist()
    assert rows.max() - rows.min() <= 1
    assert plan["phases"] == max(len(blocks_of(passes["shape"])) for passes in plan["passes"]) > 1


@settings(max_examples=100)
@given(st.data())
def test_slices_by_rows_have_steps_evenly_and_the_memory_that_there_is(data):
    rng = np.random.default_rng(0)
    slices, B = data.draw(st.integers(2, 4)), data.draw(st.integers(16, 40))
    T = data.draw(st.sampled_from([1, 2, 50, 300]))
    lengths = np.array(sorted(data.draw(st.lists(st.integers(1, T), min_size=B, max_size=B)))[::-1], np.intp)
    layer = divided(rng, "rows", slices, data.draw(st.sampled_from(["LSTM", "GRU"])))
    plan = planned(layer, T, B, slices, lengths=lengths)
    first = plan["first"]
    assert first[0] == 0 and first[-1] == B
    assert plan["phases"] == max(len(blocks_of(passes["shape"])) for passes in plan["passes"])
    for begin, end, passes in zip(first[:-1], first[1:], plan["passes"], strict=True):
        assert 0 < end - begin <= 2 * -(-B // slices)  # rounded up
        assert passes["shape"]["B"] == end - begin
        assert passes["shape"]["T"] == lengths[begin]
        assert passes["common_steps"] == lengths[end - 1]
    assert plan["bytes"] <= layer._operator.room(T, B, True, slices)


@pytest.mark.parametrize("T", (1, 100))
def test_a_phase_by_direction_is_a_block_of_a_layer(rng, T):
    plan = planned(divided(rng, "direction", 2, num_layers=3, bidirectional=True), T, 20, 2)
    assert (plan["division"], plan["slices"], plan["first"]) == ("direction", 2, None)
    shape = plan["passes"][0]["shape"]
    assert plan["phases"] == 3 * len(blocks_of(shape))
    assert shape["sweep"] == T


@needs_simd
@pytest.mark.parametrize("T, B", [(1, 1), (2, 1), (100, 1), (600, 1), (257, 4)])
@pytest.mark.parametrize("bidirectional", (False, True))
def test_phases_by_units_are_those_of_every_pass(rng, T, B, bidirectional):
    """Its projection, its steps, and leaving the state. A pass of one step projects in it."""
    layer = divided(rng, "units", 3, hidden_size=80, num_layers=2, bidirectional=bidirectional)
    plan = planned(layer, T, B, 3)
    assert (plan["division"], plan["slices"]) == ("units", 3)
    blocks = blocks_of(plan["passes"][0]["shape"])
    phases = sum(2 if steps == 1 else 1 + steps + 1 for steps in blocks)
    assert plan["phases"] == 2 * (1 + bidirectional) * phases
    assert plan["first"][0] == 0 and plan["first"][-1] == plan["passes"][0]["parts"]
    parts = np.diff(plan["first"])
    assert parts.min() >= 1 and parts.max() - parts.min() <= 1


@pytest.mark.parametrize("layers, slices", [(1, 2), (2, 3), (3, 4), (3, 6)])
def test_every_slice_of_a_pipeline_has_a_stage(rng, layers, slices):
    plan = planned(divided(rng, "pipeline", slices, num_layers=layers), 200, 2, slices)
    assert (plan["division"], plan["slices"]) == ("pipeline", slices)
    assert plan["first"][0] == 0 and plan["first"][-1] == 2 * layers
    assert np.diff(plan["first"]).min() >= 1
    assert plan["phases"] == len(blocks_of(plan["passes"][0]["shape"])) + slices - 1


@pytest.mark.parametrize(
    "division, options",
    [
        ("direction", {}),
        ("units", {"backend": "blas"}),
        ("units", {"is_ragged": True}),
        ("pipeline", {"bidirectional": True}),
        ("pipeline", {"is_ragged": True}),
        ("rows", {"B": 7}),
    ],
)
def test_what_cannot_be_divided_that_way_runs_alone(rng, division, options):
    is_ragged, B = options.pop("is_ragged", False), options.pop("B", 20)
    plan = planned(divided(rng, division, 2, **options), 50, B, 2, is_ragged=is_ragged)
    assert plan["division"] == "alone"


# ---------------------------------------------------------------- passes


@pytest.mark.parametrize("bidirectional", (False, True))
def test_rows_in_the_order_of_time_are_neither_gathered_nor_kept_apart(rng, bidirectional):
    layer = random_layer(rng, "LSTM", 16, 40, "float32", num_layers=2, bidirectional=bidirectional)
    passes = planned(layer, 50, 3)["passes"][0]
    assert passes["direct_steps"] == [[50, 50], [50, 50]]
    assert passes["is_in_place"] == [[True, True], [True, True]]
    assert not passes["is_c_apart"]


@pytest.mark.parametrize("T, B, most", [(50, 3, 1), (1, 3, 1), (50, 1, 50)])
def test_inputs_of_several_steps_are_gathered_where_the_batch_comes_first(rng, T, B, most):
    """Rows of one step lie at one distance, and those of one sequence too."""
    layer = random_layer(rng, "LSTM", 16, 40, "float32", num_layers=2)
    passes = planned(layer, T, B, is_batch_first=True)["passes"][0]
    assert passes["direct_steps"][OUTSIDE] == [most, most]
    assert passes["direct_steps"][BETWEEN] == [T, T]


def test_rows_with_lengths_are_gathered_where_their_order_is_another(rng):
    """Between two layers they are in order, but the reverse direction begins at the end of each."""
    layer = random_layer(rng, "LSTM", 16, 40, "float32", num_layers=2, bidirectional=True)
    passes = planned(layer, 9, 3, lengths=np.array([9, 4, 2]))["passes"][0]
    assert passes["direct_steps"] == [[9, 0], [0, 0]]
    assert passes["is_in_place"] == [[True, False], [False, False]]
    assert passes["is_c_apart"]
    assert passes["common_steps"] == 2


def test_one_step_projects_its_own_inputs_unless_they_may_be_gone(rng):
    assert planned(random_layer(rng), 50, 3)["passes"][0]["projected_steps"] == 2
    assert planned(divided(rng, "pipeline", 2), 50, 3, 2)["passes"][0]["projected_steps"] == 1


@needs_simd
@pytest.mark.parametrize("T, B, is_apart", [(20, 6, False), (20, 7, True), (1, 7, False)])
def test_crowded_rows_are_kept_apart_for_several_steps(rng, T, B, is_apart):
    """Rows of 2 KB, of more rows than a tile has."""
    layer = random_layer(rng, "LSTM", 16, 512, "float32", num_layers=2)
    passes = planned(layer, T, B)["passes"][0]
    assert passes["is_in_place"] == [[not is_apart] * 2] * 2
    assert passes["is_c_apart"] == is_apart
    assert (passes["ld_c"] > 512) == (B > 6)


@needs_simd
def test_a_slice_by_rows_has_decisions_of_its_own(rng):
    """Seven rows crowd, and six do not."""
    plan = planned(divided(rng, "rows", 2, hidden_size=512), 20, 13, 2)
    assert [passes["shape"]["B"] for passes in plan["passes"]] == [6, 7]
    assert [passes["is_c_apart"] for passes in plan["passes"]] == [False, True]
