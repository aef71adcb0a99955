"""Programs that run chunk by chunk, from graphs written by hand: no torch."""

import copy
import pickle
import re
import threading

import numpy as np
import pytest
from graphs import make_program
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.graph import Graph, Input, Loop, Node, ProgramSpec, Size, StateLink, Value
from fastrnn.program.program import Program

X = Value("x")


def node(operator, outputs="y", where="model.py:12: y = f(x)", **arguments):
    outputs = (outputs,) if isinstance(outputs, str) else outputs
    return Node(operator, arguments, outputs, where)


def program(shape, nodes, outputs=("y",), constants=None, states=(), more=()):
    """A program of an input x, and more of them, that gives one array or a tuple."""
    inputs = (Input("x", "float32", shape), *more)
    constants = {
        name: np.asarray(array, "float32" if np.asarray(array).dtype.kind == "f" else None)
        for name, array in (constants or {}).items()
    }
    graph = Graph(inputs, tuple(nodes), tuple(outputs), constants, tuple(states))
    hidden = {link.input for link in states if link.initial is not None}
    names = tuple(form.name for form in inputs if form.name not in hidden)
    arguments = {"tuple": [{"tuple": [{"array": i} for i in range(len(names))]}, {"dict": {}}]}
    results = [{"array": i} for i in range(len(outputs))]
    return Program(
        ProgramSpec(graph, arguments, results[0] if len(results) == 1 else {"tuple": results}, names)
    )


def flat(value):
    return [array for part in value for array in flat(part)] if isinstance(value, tuple) else [value]


def pieces(x, axis, cuts):
    """x in chunks of these sizes along an axis, then the rest."""
    ends = np.cumsum(cuts)
    return np.split(x, ends[ends <= x.shape[axis]], axis)


def streamed(stream, x, axis, cuts, *others):
    """The results of a stream over chunks, joined along time; those without time as they are in the end."""
    parts = [flat(stream.run(piece, *others)) for piece in pieces(x, axis, cuts)] + [flat(stream.finish())]
    joined = []
    for index in range(len(parts[0])):
        own = [part[index] for part in parts]
        time_axis = stream._known.time_axis(index)
        joined.append(own[-1] if time_axis is None else np.concatenate(own, time_axis))
    return joined


def check(model, x, axis, cuts, time="T"):
    stream = model.stream(time=time)
    for got, wanted in zip(streamed(stream, x, axis, cuts), flat(model(x)), strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted)
    return stream


def convolution(rng, span=3, stride=1, padding=0, dilation=1, pad=0, operator="conv1d", groups=1):
    """A convolution over x (B, 4, T), with zeros before the first step."""
    before = [node("pad", "padded", self=X, pad=(pad, 0))] if pad else []
    source = Value("padded") if pad else X
    window = dict(stride=(stride,), padding=(padding,), dilation=(dilation,), groups=groups)
    product = node(operator, input=source, weight=Value("w"), bias=Value("b"), **window)
    constants = {"w": rng.standard_normal((4, 4 // groups, span)), "b": rng.standard_normal(4)}
    return program(("B", 4, "T"), [*before, product], constants=constants)


def recurrent(rng, operator="gru", outputs=("y",), bidirectional=False):
    """A recurrent layer over x (B, T, 4) that begins with zeros."""
    gates = {"gru": 3, "lstm": 4}[operator]
    sizes = [(gates * 5, 4), (gates * 5, 5), (gates * 5,), (gates * 5,)] * (1 + bidirectional)
    constants = {f"p{i}": rng.standard_normal(size) for i, size in enumerate(sizes)}
    count = 1 + bidirectional
    zeros = node("zeros", "h", size=(count, Size("dim", "x", 0), 5), dtype="float32")
    layer = node(
        operator, ("y", "h_n", "c_n")[: 2 + (operator == "lstm")], input=X,
        hx=(Value("h"), Value("h")) if operator == "lstm" else Value("h"),
        params=tuple(map(Value, constants)), has_biases=True, num_layers=1, dropout=0.0, train=False,
        bidirectional=bidirectional, batch_first=True,
    )  # fmt: skip
    return program(("B", "T", 4), [zeros, layer], outputs, constants)


CUTS = st.lists(st.integers(0, 9), max_size=12)


# ---------------------------------------------------------------- the same bits


@given(CUTS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.integers(0, 5))
def test_convolutions_of_any_form_agree_with_the_whole(cuts, span, stride, dilation, padding, pad):
    rng = np.random.default_rng(span)
    model = convolution(rng, span, stride, padding, dilation, pad)
    check(model, rng.standard_normal((2, 4, 30), dtype="float32"), 2, cuts)


@given(CUTS, st.integers(1, 5), st.integers(1, 3), st.integers(1, 2), st.integers(0, 3), st.integers(0, 2))
def test_transposed_convolutions_of_any_form_agree_with_the_whole(
    cuts, span, stride, dilation, padding, more
):
    rng = np.random.default_rng(span)
    more = min(more, max(stride, dilation) - 1)
    weight = {"w": rng.standard_normal((4, 3, span))}
    window = dict(stride=(stride,), padding=(padding,), output_padding=(more,), dilation=(dilation,))
    product = node("conv_transpose1d", input=X, weight=Value("w"), **window)
    model = program(("B", 4, "T"), [product], constants=weight)
    check(model, rng.standard_normal((2, 4, 20), dtype="float32"), 2, cuts)


@pytest.mark.parametrize("operator", ["max_pool1d", "avg_pool1d"])
@given(cuts=CUTS, size=st.integers(1, 4), stride=st.integers(1, 4), padding=st.integers(0, 2))
def test_pools_agree_with_the_whole(operator, cuts, size, stride, padding):
    pool = node(operator, self=X, kernel_size=(size,), stride=(stride,), padding=(min(padding, size // 2),))
    x = np.random.default_rng(0).standard_normal((2, 4, 30), dtype="float32")
    check(program(("B", 4, "T"), [pool]), x, 2, cuts)


@given(CUTS, st.integers(-3, 4), st.integers(-3, 4), st.integers(0, 4), st.integers(0, 4), st.integers(1, 3))
def test_pads_and_slices_agree_with_the_whole(cuts, before, after, first, last, stride):
    padded = node("pad", "p", self=X, pad=(0, 0, before, after), value=0.5)
    end = -last if last else 2**63 - 1
    part = node("slice", "y", self=Value("p"), dim=1, start=first, end=end, step=stride)
    model = program(("B", "T", 3), [padded, part], ("p", "y"))
    x = np.random.default_rng(0).standard_normal((2, 25, 3), dtype="float32")
    check(model, x, 1, cuts)


@pytest.mark.parametrize("operator", ["gru", "lstm"])
@given(cuts=CUTS)
def test_recurrent_layers_carry_their_states(operator, cuts):
    rng = np.random.default_rng(1)
    model = recurrent(rng, operator, ("y", "h_n"))
    check(model, rng.standard_normal((3, 20, 4), dtype="float32"), 1, cuts)


@given(CUTS)
def test_a_loop_over_time_carries_its_states(cuts):
    body = (
        node("select", "now", self=X, dim=1, index=Size("step")),
        node("mul", "kept", self=Value("before"), other=0.9),
        node("add", "after", self=Value("kept"), other=Value("now")),
    )
    size = (Size("dim", "x", 0), 4)
    loop = Loop(body, Size("dim", "x", 1), (("before", "first", "after"),), ("after",), ("after",))
    nodes = [
        node("full", "first", size=size, fill_value=0.25, dtype="float32"),
        Node("loop", {}, ("all", "last"), "", loop),
        node("movedim", "y", self=Value("all"), source=0, destination=1),
    ]
    model = program(("B", "T", 4), nodes, ("y", "last"))
    check(model, np.random.default_rng(2).standard_normal((2, 15, 4), dtype="float32"), 1, cuts)


@given(CUTS, st.integers(1, 4))
def test_steps_that_become_one_agree_with_the_whole(cuts, count):
    shape = (Size("dim", "x", 0), -1, 3 * count)
    nodes = [
        node("reshape", "z", self=X, shape=shape),
        node("tanh", "t", self=Value("z")),
        node("reshape", "y", self=Value("t"), shape=(Size("dim", "x", 0), -1, 3)),
    ]
    model = program(("B", "T", 3), nodes, ("y", "z"))
    check(model, np.random.default_rng(2).standard_normal((2, 24, 3), dtype="float32"), 1, cuts)


@given(CUTS)
def test_a_skip_waits_for_a_branch_that_looks_ahead(cuts):
    rng = np.random.default_rng(0)
    base = convolution(rng, 5, padding=2)
    nodes = [*base.graph.nodes, node("add", "z", self=Value("y"), other=X)]
    model = program(("B", 4, "T"), nodes, ("z",), base.graph.constants)
    stream = check(model, rng.standard_normal((2, 4, 30), dtype="float32"), 2, cuts)
    assert stream.lag == 2 and stream.looks_ahead == ("conv1d looks 2 ahead at model.py:12: y = f(x)",)


def test_float64_agrees_too(rng):
    model = Program(convolution(rng, 3, pad=2).spec, precision="float64")
    check(model, rng.standard_normal((2, 4, 9)), 2, [1] * 8)


def test_an_inner_axis_with_time_in_it_keeps_its_order(rng):
    """Windows over time in an axis that has rows inside and outside of the steps."""
    shape = (Size("dim", "x", 0), 4, Size("dim", "x", 2), 3)
    nodes = [
        node("im2col", "p", self=X, kernel_size=(3, 2), dilation=(1, 1), padding=(1, 0), stride=(1, 1)),
        node("tanh", "t", self=Value("p")),
        node("slice", "s", self=Value("t"), dim=1, start=0, end=4),
        node("reshape", "y", self=Value("s"), shape=shape),
    ]
    model = program(("B", 2, "T", 4), nodes)
    assert check(model, rng.standard_normal((2, 2, 9, 4), dtype="float32"), 2, [1, 3, 2]).lag == 1


# ---------------------------------------------------------------- what a stream says


def test_a_step_has_no_time_axis(rng):
    model = convolution(rng, 3, pad=2)
    x = rng.standard_normal((2, 4, 6), dtype="float32")
    stream = model.stream()
    steps = [stream.step(x[:, :, t]) for t in range(6)]
    assert stream.lag == 0 and stream.looks_ahead == () and stream.time == "T"
    np.testing.assert_array_equal(np.stack(steps, 2), model(x))


def test_a_result_that_has_not_come_is_none(rng):
    stream = convolution(rng, 3, padding=1).stream()
    x = rng.standard_normal((2, 4, 3), dtype="float32")
    assert stream.step(x[:, :, 0]) is None
    assert stream.step(x[:, :, 1]).shape == (2, 4)
    assert stream.finish().shape == (2, 4, 1)
    assert stream.step(x[:, :, 0]) is None  # a new sequence


def test_results_never_come_before_their_step(rng):
    """Zeros before the first step are there from the beginning, and wait."""
    model = program(("B", "T", 3), [node("pad", self=X, pad=(0, 0, 4, 0))])
    x = rng.standard_normal((2, 6, 3), dtype="float32")
    stream = model.stream()
    whole = model(x)
    assert stream.run(x[:, :0]).shape[1] <= 4
    got = streamed(model.stream(), x, 1, [1] * 5)[0]
    np.testing.assert_array_equal(got, whole)


def test_results_with_another_number_of_steps_keep_their_axis(rng):
    x = rng.standard_normal((2, 6, 3), dtype="float32")
    twice = program(("B", "T", 3), [node("repeat_interleave", self=X, repeats=2, dim=1)])
    stream = twice.stream(time="T")
    got = [stream.step(x[:, t]) for t in range(6)]
    assert {part.shape for part in got} == {(2, 2, 3)}
    np.testing.assert_array_equal(np.concatenate(got, 1), twice(x))
    half = program(("B", "T", 3), [node("slice", self=X, dim=1, start=0, end=2**63 - 1, step=2)])
    stream = half.stream()
    got = [stream.step(x[:, t]) for t in range(6)]
    assert [part.shape[1] for part in got] == [1, 0, 1, 0, 1, 0]
    np.testing.assert_array_equal(np.concatenate(got, 1), half(x))


def test_a_step_that_gives_several_says_so(rng):
    stream = program(("B", "T", 3), [node("pad", self=X, pad=(0, 0, 2, 0))]).stream(2)
    with pytest.raises(ValueError, match=r"step: expected one step of results, got 3\. Use run\(\)\."):
        stream.step(rng.standard_normal((2, 3)))
    assert stream.run(rng.standard_normal((2, 1, 3))).shape == (2, 3, 3)


def test_states_have_names_and_can_be_set(rng):
    model = recurrent(rng)
    x = rng.standard_normal((2, 9, 4), dtype="float32")
    stream = model.stream(2)
    assert {name: array.shape for name, array in stream.state.items()} == {"y.h": (1, 2, 5)}
    first = stream.run(x[:, :4])
    saved = stream.state
    second = stream.run(x[:, 4:])
    saved_again = copy.deepcopy(saved)
    stream.state = saved
    np.testing.assert_array_equal(stream.run(x[:, 4:]), second)
    saved["y.h"][...] = 7  # a copy: the stream has its own
    stream.state = saved_again
    np.testing.assert_array_equal(stream.run(x[:, 4:]), second)
    stream.reset()
    np.testing.assert_array_equal(stream.run(x[:, :4]), first)


def test_a_wrong_state_is_refused_and_changes_nothing(rng):
    stream = recurrent(rng).stream(2)
    stream.run(rng.standard_normal((2, 3, 4)))
    before = stream.state
    for state, error, words in (
        ({"y.h": np.zeros((1, 3, 5), "float32")}, ValueError, "y.h of float32 and shape (1, 2, 5), got"),
        ({"y.h": np.zeros((1, 2, 5))}, ValueError, "got float64 of shape (1, 2, 5)"),
        ({}, ValueError, 'got none for "y.h"'),
        ({**before, "other": np.zeros(3)}, ValueError, 'expected a state of "y.h", got "other"'),
        ([1, 2], TypeError, "expected a state as it was read, got list"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            stream.state = state
        np.testing.assert_array_equal(stream.state["y.h"], before["y.h"])


def test_a_call_that_raises_leaves_the_state(rng):
    stream = recurrent(rng).stream()
    stream.run(rng.standard_normal((2, 3, 4)))
    before = stream.state
    for x, words in (
        (np.zeros((3, 2, 4)), "x of shape (B, T, 4) with B = 2, as in the stream, got (3, 2, 4)"),
        (np.zeros((2, 2, 5)), "x of shape (B, T, 4), got (2, 2, 5)"),
        (np.zeros((2, 4)), "x of shape (B, T, 4), got (2, 4)"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            stream.run(x)
    with pytest.raises(TypeError, match="ProgramStream: expected x, got 2 arguments"):
        stream.run(np.zeros((2, 2, 4)), None)
    with pytest.raises(TypeError, match="ProgramStream: expected x, got no arguments"):
        stream.run()
    np.testing.assert_array_equal(stream.state["y.h"], before["y.h"])


def test_how_many_rows_there_are_is_said_or_seen(rng):
    model = recurrent(rng)
    stream = model.stream()
    assert stream.state is None and stream.finish() is None
    stream.run(rng.standard_normal((3, 2, 4)))
    assert stream.state["y.h"].shape == (1, 3, 5)
    stream.reset()
    stream.run(rng.standard_normal((5, 2, 4)))
    with pytest.raises(ValueError, match="B = 4, as in the stream"):
        model.stream(4).run(rng.standard_normal((3, 2, 4)))
    with pytest.raises(ValueError, match="batch_size"):
        model.stream(0)


def test_a_pickled_stream_goes_on(rng):
    model = convolution(rng, 5, padding=2)
    x = rng.standard_normal((2, 4, 12), dtype="float32")
    stream = model.stream()
    stream.run(x[:, :, :5])
    other = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(other.run(x[:, :, 5:]), stream.run(x[:, :, 5:]))
    np.testing.assert_array_equal(other.finish(), stream.finish())


def test_one_thread_at_a_time(rng):
    stream = recurrent(rng).stream(2)
    failures = []

    def call():
        try:
            stream.run(np.zeros((2, 1, 4)))
        except RuntimeError as error:
            failures.append(str(error))

    with stream._alone():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert failures == ["ProgramStream: expected one thread at a time, got a second one."]


def test_an_argument_without_time_is_given_to_each_call(rng):
    """It may be what the state begins as."""
    base = recurrent(rng)
    layer = base.graph.nodes[1]
    layer = layer._replace(arguments={**layer.arguments, "hx": Value("z")})
    scaled = node("mul", "out", self=Value("y"), other=2.0)
    more = (Input("z", "float32", (1, "B", 5)),)
    model = program(("B", "T", 4), [layer, scaled], ("out",), base.graph.constants, more=more)
    x, z = rng.standard_normal((2, 9, 4), dtype="float32"), rng.standard_normal((1, 2, 5), dtype="float32")
    got = streamed(model.stream(), x, 1, [2, 1, 3], z)[0]
    np.testing.assert_array_equal(got, model(x, z))


# ---------------------------------------------------------------- what is refused

ATTENTION = {name: X for name in ("query", "key", "value")}
REFUSED = {
    "softmax over time": node("softmax", self=X, dim=1),
    "mean over time": node("mean", self=X, dim=(1,)),
    "cumsum over time": node("cumsum", self=X, dim=1),
    "flip over time": node("flip", self=X, dims=(1,)),
    "sort over time": node("sort", ("y", "i"), self=X, dim=1),
    "attention over time": node("scaled_dot_product_attention", **ATTENTION),
    "roll over time": node("roll", self=X, shifts=1, dims=1),
    "reflect padding over time": node("pad", self=X, pad=(0, 0, 2, 0), mode="reflect"),
    "step 0 alone": node("select", self=X, dim=1, index=0),
    "slice of steps at the beginning or the end": node("slice", self=X, dim=1, start=0, end=3),
    "cat of one sequence after another": node("cat", tensors=(X, X), dim=1),
    "instance_norm over time": node(
        "instance_norm", input=X, use_input_stats=True, momentum=0.1, eps=1e-5, cudnn_enabled=True
    ),
    "a product that sums over time": node("einsum", equation="btc,btd->bcd", tensors=(X, X)),
    "einsum of each step": node("einsum", equation="btc,bsc->bts", tensors=(X, X)),
    "renorm": node("renorm", self=X, p=2, dim=0, maxnorm=1.0),
    "arange with a number that depends on the length": node("arange", end=Size("dim", "x", 1)),
    "div with a number that depends on the length": node("div", self=X, other=Size("dim", "x", 1)),
    "adaptive_avg_pool1d over time": node("adaptive_avg_pool1d", self=Value("turned"), output_size=(1,)),
    "unbind over time": node("unbind", ("y", "z"), self=X, dim=1),
}


def test_an_operator_that_fixes_the_length_is_named():
    model = program(("B", "T", 4), [node("layer_norm", input=X, normalized_shape=(336, 4))])
    with pytest.raises(
        ValueError, match=r"a program that runs at many sizes T, .* layer_norm: .*model.py:12: y = f"
    ):
        model.stream(time="T")


@pytest.mark.parametrize("words", REFUSED)
def test_what_needs_the_whole_sequence_is_named(words):
    turned = node("transpose", "turned", self=X, dim0=1, dim1=2)
    model = program(("B", "T", 4), [turned, REFUSED[words]])
    shown = words.replace("a product that sums", "einsum that sums")
    expected = f"stream: expected operators that go step by step in time, got {shown}"
    with pytest.raises(ValueError, match=re.escape(expected)) as caught:
        model.stream(time="T")
    assert "model.py:12: y = f(x)" in str(caught.value)


def test_a_layer_both_ways_over_time_is_named(rng):
    words = "a bidirectional gru over time, which needs the whole sequence at model.py:12: y = f(x)"
    with pytest.raises(ValueError, match=re.escape(words)):
        recurrent(rng, bidirectional=True).stream()


def test_which_size_is_time_is_found_or_asked_for(rng):
    model = program(("B", "T", 3), [node("tanh", self=X)])
    with pytest.raises(ValueError, match=r'which size is time, got none along .*\. time="T" says it\.'):
        model.stream()
    with pytest.raises(ValueError, match=r'time to be one of "B" and "T", got \'U\''):
        model.stream(time="U")
    with pytest.raises(ValueError, match="a program with a size that is time, got one of fixed sizes"):
        program((2, 3), [node("tanh", self=X)]).stream()
    assert convolution(rng, 3, pad=2).stream().time == "T"
    with pytest.raises(ValueError, match='which size is time, got "T" and "U", any of which may be it'):
        window = dict(kernel_size=(2, 2), stride=(1, 1), padding=(0, 0), ceil_mode=False)
        program(
            ("T", 1, "U", 6),
            [node("max_pool2d", self=X, **window), node("max_pool2d", "z", self=Value("t2"), **window)][:1]
            + [
                node("transpose", "t", self=X, dim0=0, dim1=3),
                node("max_pool2d", "t2", self=Value("t"), **window),
            ],
            ("y", "t2"),
        ).stream()


# ---------------------------------------------------------------- declared states


def declared(initial):
    """x (B, 3) is added to a state, and the sum is both the result and the next state."""
    nodes = [node("add", "total", self=Value("s"), other=X), node("mul", "y", self=Value("total"), other=2.0)]
    constants = {} if initial is None else {"s.initial": initial}
    outputs = ("y", "total") if initial is None else ("y",)
    link = StateLink("s", "total", None if initial is None else "s.initial")
    shape = ("B", 3) if initial is None else (2, 3)
    return program(shape, nodes, outputs, constants, (link,), (Input("s", "float32", shape),))


def test_declared_states_are_carried_and_not_returned(rng):
    x = rng.standard_normal((4, 2, 3), dtype="float32")
    stream = declared(None).stream(2)
    assert stream.time is None and stream.lag == 0
    total = np.zeros((2, 3), "float32")
    for now in x:
        total = total + now
        np.testing.assert_array_equal(stream.step(now), total * 2)
    np.testing.assert_array_equal(stream.state["s"], total)
    stream.state = {"s": np.ones((2, 3))}
    np.testing.assert_array_equal(stream.run(x[0]), (x[0] + 1) * 2)
    with pytest.raises(ValueError, match=r"s of float32 and shape \(2, 3\), got float64 of shape \(3, 3\)"):
        stream.state = {"s": np.ones((3, 3))}
    with pytest.raises(ValueError, match="a program without declared states"):
        declared(None).stream(time="B")


def test_a_hidden_state_begins_as_the_module_has_it(rng):
    initial = rng.standard_normal((2, 3), dtype="float32")
    stream = declared(initial).stream()
    x = rng.standard_normal((2, 3), dtype="float32")
    np.testing.assert_array_equal(stream.step(x), (initial + x) * 2)
    stream.step(x)
    stream.reset()
    np.testing.assert_array_equal(stream.step(x), (initial + x) * 2)


def test_layers_that_take_steps_where_they_cannot_are_refused(rng):
    """A file may say anything: here the dropout is an array with a row for each step."""
    constants = {"w": rng.standard_normal((12, 3), "float32"), "u": rng.standard_normal((12, 4), "float32")}
    gru = {"input": Value("x"), "hx": Value("h0"), "params": (Value("w"), Value("u")), "has_biases": False}
    gru |= {"num_layers": 1, "dropout": Value("x"), "train": False, "bidirectional": False}
    nodes = [("zeros", {"size": (1, 2, 4), "dtype": "float32"}, ("h0",)), ("gru", gru, ("y", None))]
    program = make_program({"x": ("float32", ("T", 2, 3))}, nodes, ("y",), constants)
    with pytest.raises(ValueError, match="gru with a weight or a first state for each step"):
        program.stream()
