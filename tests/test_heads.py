"""`with_heads`: a body and several heads as one program, which gives what a Sequential of each gives."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers import arrays_of, random_layer

import fastrnn
from fastrnn.layers.registry import LAYERS
from fastrnn.program.layer_nodes import NODES

# With narrow weights the outputs have the same bits: any other ones may be rounded to other narrow numbers.
PRECISIONS = {"float32": 1e-6, "float64": 1e-13, "bfloat16": 0, "int8": 0}


@pytest.fixture
def make(rng):
    return Makes(rng)


class Makes:
    """Layers of random weights, of 4 features if nothing else is said."""

    def __init__(self, rng, precision="float32", batch_first=False):
        self.rng, self.options = rng, {"precision": precision}
        self.over_time = {**self.options, "batch_first": batch_first}
        # Of layers without products, and of inputs.
        self.wide = {"precision": "float64" if precision == "float64" else "float32"}

    def arrays(self, **shapes):
        return {name: self.rng.standard_normal(shape) for name, shape in shapes.items()}

    def recurrent(self, kind="LSTM", size=4, hidden=4, initial=False, **options):
        cell = dict(options)
        nonlinearity = cell.pop("nonlinearity", None)
        layer = random_layer(self.rng, kind, size, hidden, **cell)
        more = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
        if initial:
            states = [
                self.rng.standard_normal(shape) for shape in layer.signature.state_shapes(None).values()
            ]
            more["initial_state"] = tuple(states) if kind == "LSTM" else states[0]
        return type(layer).from_state_dict(layer.tensors, **more, **self.over_time)

    def projected(self):
        shapes = {"weight_ih_l0": (20, 4), "weight_hh_l0": (20, 3), "weight_hr_l0": (3, 5)}
        return fastrnn.LSTM.from_state_dict(self.arrays(**shapes), **self.over_time)

    def linear(self, size=4, out=3, bias=True):
        shapes = {"weight": (out, size), **({"bias": (out,)} if bias else {})}
        return fastrnn.Linear.from_state_dict(self.arrays(**shapes), **self.options)

    def convolution(self, taps=3, **options):
        channels = 4 // options.get("groups", 1)
        weights = self.arrays(weight=(4, channels, taps), bias=(4,))
        return fastrnn.Conv1d.from_state_dict(weights, **options, **self.over_time)

    def embedding(self, tokens=9):
        return fastrnn.Embedding.from_state_dict(self.arrays(weight=(tokens, 4)), **self.options)

    def norm(self, channels_first=False):
        weights = self.arrays(running_mean=4, weight=4, bias=4)
        weights["running_var"] = np.abs(self.rng.standard_normal(4)) + 0.5
        return fastrnn.BatchNorm1d.from_state_dict(weights, channels_first=channels_first, **self.wide)

    def layer_norm(self):
        return fastrnn.LayerNorm.from_state_dict(self.arrays(weight=4, bias=4), **self.wide)

    def scale(self, clip=None):
        mean = self.rng.standard_normal(4)
        return fastrnn.Scale(mean, np.arange(1.0, 5.0), clip, **self.wide)


# A body of each kind of layer and option, and heads beside a Linear one. Of 4 features.
BODIES = {
    "LSTM": lambda m: [m.recurrent()],
    "LSTM of two layers": lambda m: [m.recurrent(num_layers=2)],
    "LSTM, bidirectional": lambda m: [m.recurrent(hidden=2, bidirectional=True, num_layers=2)],
    "LSTM without bias": lambda m: [m.recurrent(bias=False)],
    "LSTM, projected": lambda m: [m.projected(), m.linear(3, 4)],
    "LSTM, learned": lambda m: [m.recurrent(initial=True, num_layers=2)],
    "GRU": lambda m: [m.recurrent("GRU")],
    "GRU, learned": lambda m: [m.recurrent("GRU", initial=True)],
    "RNN, tanh": lambda m: [m.recurrent("RNN")],
    "RNN, relu": lambda m: [m.recurrent("RNN", nonlinearity="relu")],
    "two recurrent layers": lambda m: [m.recurrent(), m.linear(4, 4), m.recurrent("GRU")],
    "Embedding": lambda m: [m.embedding(), m.recurrent("GRU")],
    "OneHot": lambda m: [fastrnn.OneHot(7, **m.wide), m.recurrent("GRU", 7)],
    "OneHot of one": lambda m: [fastrnn.OneHot(1, **m.wide), m.recurrent("GRU", 1)],
    "Linear": lambda m: [m.linear(4, 4, bias=False)],
    "Conv1d": lambda m: [m.convolution()],
    "Conv1d with a stride": lambda m: [m.convolution(stride=2, padding=1), m.recurrent()],
    "Conv1d, same": lambda m: [m.convolution(4, padding="same"), m.recurrent("GRU")],
    "Conv1d, groups": lambda m: [m.convolution(2, groups=2, dilation=2)],
    "Conv1d, causal": lambda m: [m.convolution(causal=True)],
    "Conv1d, causal and dilated": lambda m: [m.convolution(causal=True, dilation=2), m.recurrent()],
    "Conv1d of one step": lambda m: [m.convolution(1, causal=True)],
    "Scale": lambda m: [m.scale(), m.recurrent()],
    "Scale, clipped": lambda m: [m.scale(0.5), m.recurrent()],
    "Scale, clipped below": lambda m: [m.scale((-0.5, None))],
    "LayerNorm": lambda m: [m.layer_norm()],
    "LayerNorm without weights": lambda m: [fastrnn.LayerNorm(4)],
    "BatchNorm1d": lambda m: [m.norm(), m.recurrent()],
    "BatchNorm1d after Linear": lambda m: [m.linear(4, 4), m.norm()],
    "Last": lambda m: [m.recurrent(), fastrnn.Last()],
    "Last, then channels_first": lambda m: [m.recurrent(), fastrnn.Last(), m.norm(True)],
    "FinalState": lambda m: [m.recurrent(hidden=2, bidirectional=True), fastrnn.FinalState()],
    "Mean": lambda m: [m.recurrent("GRU"), fastrnn.Mean()],
    "Max": lambda m: [fastrnn.Max()],
    "Dropout": lambda m: [fastrnn.Dropout()],
    "ReLU": lambda m: [fastrnn.ReLU()],
    "Tanh": lambda m: [m.recurrent(), fastrnn.Tanh()],
    "Sigmoid": lambda m: [fastrnn.Sigmoid()],
    "Softmax": lambda m: [fastrnn.Softmax()],
    "Softmax over time": lambda m: [m.recurrent(), fastrnn.Softmax(0)],
    "LogSoftmax": lambda m: [fastrnn.LogSoftmax()],
    "LeakyReLU": lambda m: [fastrnn.LeakyReLU(0.2)],
    "ELU": lambda m: [fastrnn.ELU(0.7)],
    "GELU": lambda m: [fastrnn.GELU()],
    "GELU, tanh": lambda m: [fastrnn.GELU("tanh")],
    "SiLU": lambda m: [fastrnn.SiLU()],
    "Softplus": lambda m: [fastrnn.Softplus(2.0, 1.0)],
    "Hardtanh": lambda m: [fastrnn.Hardtanh(-0.3, 0.4)],
}
# What no stream runs, of layers as of programs.
WHOLE = (
    "LSTM, bidirectional", "Conv1d", "Conv1d with a stride", "Conv1d, same", "Conv1d, groups", "FinalState",
    "Mean", "Max", "Softmax over time",
)  # fmt: skip


def parts_of(make, case):
    body = BODIES[case](make)
    if any(layer.signature.gives_last for layer in body):
        heads = {"score": make.linear(), "same": fastrnn.Dropout()}
    else:
        last = [fastrnn.Last()]
        if not any(hasattr(layer, "batch_first") for layer in body):
            last.insert(0, make.recurrent())  # a Sequential has its layout from such a layer
        heads = {"score": make.linear(), "state": make.recurrent("GRU"), "last": fastrnn.Sequential(*last)}
        heads["same"] = fastrnn.Sequential(fastrnn.Dropout(), fastrnn.Dropout())
    return body, heads


def layers_of(head):
    return head.layers if isinstance(head, fastrnn.Sequential) else (head,)


def input_of(make, body, steps=7, rows=3):
    shape = (rows, steps) if make.over_time["batch_first"] else (steps, rows)
    if body[0].tokens is not None:
        return make.rng.integers(body[0].tokens, size=shape)
    return make.rng.standard_normal((*shape, 4)).astype(make.wide["precision"])


def assert_near(got, wanted, tolerance):
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, tolerance, tolerance)


def check_call(program, body, heads, x, state, tolerance):
    """Compare a call with one Sequential for each head. Return the state after it."""
    count = sum(bool(layer.signature.states) for layer in body)
    before = [] if state is None else list(state) if isinstance(state, tuple) else [state]
    layers = [*body, *(layer for head in heads.values() for layer in layers_of(head))]
    stateful = sum(bool(layer.signature.states) for layer in layers)
    if stateful == 1 and state is not None:
        before = [state]
    outputs, after = program(x, state)
    states = [after] if stateful == 1 else list(after or ())
    assert list(outputs) == list(heads) and len(states) == stateful
    at = count
    for name, head in heads.items():
        model = fastrnn.Sequential(*body, head)
        own = sum(bool(layer.signature.states) for layer in layers_of(head))
        given = [*before[:count], *before[at : at + own]]
        wanted, last = model(x, None if not given else given[0] if len(given) == 1 else tuple(given))
        assert_near(outputs[name], wanted, tolerance)
        got = [*states[:count], *states[at : at + own]]
        got = None if not got else got[0] if len(got) == 1 else tuple(got)
        for array, other in zip(arrays_of(got), arrays_of(last), strict=True):
            assert_near(array, other, tolerance)
        at += own
    return after


@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", BODIES)
def test_outputs_and_states_are_those_of_a_sequential(rng, case, precision, batch_first):
    make = Makes(rng, precision, batch_first)
    body, heads = parts_of(make, case)
    program = fastrnn.with_heads(fastrnn.Sequential(*body), **heads)
    tolerance = PRECISIONS[precision]
    state = check_call(program, body, heads, input_of(make, body), None, tolerance)
    check_call(program, body, heads, input_of(make, body, 9), state, tolerance)
    check_call(program, body, heads, input_of(make, body, 5, 1), None, tolerance)
    assert program.verify()["passed"] and program.precision == precision


def test_every_layer_that_a_sequential_takes_has_nodes():
    cells = {"RNNCell", "GRUCell", "LSTMCell"}
    assert NODES.keys() == LAYERS.keys() - cells
    assert {case.split(" ")[0].rstrip(",") for case in BODIES} >= NODES.keys()


@pytest.mark.parametrize("precision", ("float32", "bfloat16", "int8"))
@pytest.mark.parametrize("case", [case for case in BODIES if case not in WHOLE])
def test_streams_and_pools_have_the_bits_of_a_whole_call(rng, case, precision):
    make = Makes(rng, precision)
    body, heads = parts_of(make, case)
    program = fastrnn.with_heads(fastrnn.Sequential(*body), **heads)
    x = input_of(make, body)
    outputs, _ = program(x)
    stream, chunks = program.stream(time="T"), program.stream(3, time="T")
    steps = [stream.step(step) for step in x]
    pieces = [chunks.run(x[a:b]) for a, b in ((0, 1), (1, 1), (1, 5), (5, 7))]
    pool = program.pool(2, time="T")
    ids = [pool.open() for _ in range(3)]
    rows = [pool.step(ids[::-1], step[::-1]) for step in x]
    for name, wanted in outputs.items():
        if wanted.ndim == 2:  # the last step, which is the last one so far in a stream
            assert all(np.array_equal(got, wanted) for got in (steps[-1][name], pieces[-1][name]))
            assert np.array_equal(rows[-1][name][::-1], wanted)
            continue
        assert np.array_equal(np.stack([step[name] for step in steps]), wanted)
        assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), wanted)
        assert np.array_equal(np.stack([row[name][::-1] for row in rows]), wanted)


@pytest.mark.parametrize("case", [case for case in WHOLE if not case.startswith("Conv1d")])
def test_what_needs_the_whole_sequence_has_no_stream(make, case):
    body, heads = parts_of(make, case)
    program = fastrnn.with_heads(fastrnn.Sequential(*body), **heads)
    with pytest.raises(ValueError, match=r"^stream: expected operators .*, got .* at body\.\d: "):
        program.stream(time="T")


def test_a_stream_begins_with_what_was_learned_and_again_after_a_reset(make):
    body = make.recurrent(initial=True)
    program = fastrnn.with_heads(body, a=make.linear(), b=fastrnn.Last())
    x = input_of(make, [body])
    stream = program.stream()
    first = stream.run(x)
    assert stream.state.keys() == {"body.0.h", "body.0.c", "heads.b.0.last"}
    stream.reset()
    assert np.array_equal(stream.run(x)["a"], first["a"]) and np.array_equal(first["a"], program(x)[0]["a"])


def test_a_batch_of_rows_without_time_has_its_channels_first(make):
    body, head = [make.norm(True), make.linear(4, 4)], make.linear()
    program = fastrnn.with_heads(fastrnn.Sequential(*body), a=head, b=fastrnn.ReLU())
    x = make.rng.standard_normal((5, 4)).astype(np.float32)
    outputs, state = program(x)
    assert state is None and np.array_equal(outputs["a"], fastrnn.Sequential(*body, head)(x)[0])
    with pytest.raises(ValueError, match=r"^with_heads: body\.1: BatchNorm1d: expected x without time steps"):
        fastrnn.with_heads(fastrnn.Sequential(make.recurrent(), make.norm(True)), a=head)


def test_layers_of_several_precisions_convert_what_they_take(rng):
    narrow, wide = Makes(rng), Makes(rng, "float64")
    body, heads = [narrow.recurrent("GRU")], {"a": wide.linear(), "b": narrow.linear(), "c": wide.recurrent()}
    program = fastrnn.with_heads(*body, **heads)
    check_call(program, body, heads, input_of(narrow, body), None, 1e-6)


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("case", [case for case in BODIES if case not in WHOLE])
def test_calls_that_go_on_from_a_state_have_the_bits_of_one_call(make, case):
    body, heads = parts_of(make, case)
    program = fastrnn.with_heads(fastrnn.Sequential(*body), **heads)
    x = input_of(make, body)
    wanted, end = program(x)
    state, pieces = None, []
    for a, b in ((0, 1), (1, 2), (2, 6), (6, 7)):
        outputs, state = program(x[a:b], state)
        pieces.append(outputs)
    for name, whole in wanted.items():
        joined = np.concatenate([piece[name] for piece in pieces]) if whole.ndim == 3 else pieces[-1][name]
        assert np.array_equal(joined, whole)
    for array, other in zip(arrays_of(state), arrays_of(end), strict=True):
        assert np.array_equal(array, other)


def test_a_state_may_be_none_or_left_out_as_a_whole_or_in_parts(make):
    body, heads = [make.recurrent(initial=True)], {"a": make.linear(), "b": make.recurrent("GRU")}
    program = fastrnn.with_heads(*body, **heads)
    x = input_of(make, body)
    (h, c), g = program(x)[1]
    wanted = program(x, ((h, c), g))[0]
    for state in (None, (None, None), ((None, None), None)):
        assert np.array_equal(program(x, state)[1][1], g)
    assert np.array_equal(program(x=x, state=((h, c), g))[0]["a"], wanted["a"])
    assert np.array_equal(program(x, ((h, c), None))[0]["a"], wanted["a"])
    with pytest.raises(ValueError, match=r"^Program: expected body\.0\.h of shape \(1, B, 4\) with B = 3"):
        program(x, ((h[:, :2], c[:, :2]), g))
    with pytest.raises(TypeError, match=r"^Program: expected state to be a tuple of 2, got 3"):
        program(x, (h, c, g))
    with pytest.raises(TypeError, match=r"^Program: expected x to be a plain array of numbers, got None"):
        program(None)
    with pytest.raises(TypeError, match=r"^Program: expected x and state, got 0 arguments"):
        program()


def test_a_program_without_states_takes_none(make):
    program = fastrnn.with_heads(make.linear(4, 4), a=make.linear(), b=fastrnn.Tanh())
    x = input_of(make, [make.linear()])
    outputs, state = program(x)
    assert state is None and np.array_equal(program(x, state)[0]["b"], outputs["b"])
    with pytest.raises(ValueError, match=r"^Program: expected state to be None"):
        program(x, x)


# ---------------------------------------------------------------- files


def test_a_saved_program_is_the_same_in_another_process(make, tmp_path):
    body = fastrnn.Sequential(make.embedding(), make.recurrent(initial=True), make.convolution(causal=True))
    program = fastrnn.with_heads(body, policy=make.linear(), value=fastrnn.Sequential(make.linear(4, 1)))
    x = input_of(make, body.layers)
    outputs, state = program(x)
    program.save(tmp_path / "p.safetensors", example=((x, None), (outputs, state)))
    np.save(tmp_path / "x.npy", x)
    script = """
import numpy as np, fastrnn
program, x = fastrnn.load("p.safetensors"), np.load("x.npy")
assert program.verify()["passed"]
outputs, ((h, c), steps) = program(x)
live = [program.stream().run(x), program.pool().run([], [])]
np.savez("y.npz", h=h, c=c, steps=steps, **outputs, live=live[0]["policy"])
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    got = np.load(tmp_path / "y.npz")
    wanted = {"h": state[0][0], "c": state[0][1], "steps": state[1], "live": outputs["policy"], **outputs}
    assert got.files and all(np.array_equal(got[name], array) for name, array in wanted.items())
    wide = fastrnn.load(tmp_path / "p.safetensors", precision="float64")
    assert wide(x)[0]["policy"].dtype == np.float64 and wide.verify()["passed"]
    assert fastrnn.load(tmp_path / "p.safetensors", threads=1).threads == 1


def test_copies_are_the_same(make):
    program = fastrnn.with_heads(make.recurrent(), a=make.linear(), b=make.linear())
    x = input_of(make, [make.linear()])
    outputs, _ = program(x)
    assert np.array_equal(pickle.loads(pickle.dumps(program))(x)[0]["a"], outputs["a"])
    stream = program.stream()
    stream.run(x[:4])
    other = pickle.loads(pickle.dumps(stream))
    assert np.array_equal(other.run(x[4:])["b"], outputs["b"][4:])


def test_commands_take_the_file(make, tmp_path, run):
    path = tmp_path / "p.safetensors"
    program = fastrnn.with_heads(make.recurrent(), policy=make.linear(), value=make.linear(4, 1))
    program.save(path)
    x = input_of(make, [make.linear()])
    outputs, (h, c) = program(x)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "all.npz", **{"x": x, "body.0.h": h, "body.0.c": c})
    assert "States, which a call takes and returns: body.0.h, body.0.c" in run("info", str(path))[1]
    names = ["y0.policy", "y0.value", "y1.0", "y1.1"]
    for file, wanted in (("x.npy", outputs), ("all.npz", program(x, (h, c))[0])):
        status, _, _ = run("run", str(path), str(tmp_path / file), "-o", str(tmp_path / "y.npz"))
        got = np.load(tmp_path / "y.npz")
        assert status == 0 and got.files == names and np.array_equal(got["y0.value"], wanted["value"])
    example = ["--input", str(tmp_path / "all.npz"), "--expect", str(tmp_path / "y.npz")]
    assert run("verify", str(path))[0] == run("verify", str(path), *example)[0] == 0
    assert run("bench", str(path), "--rounds", "1")[0] == 0


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("case", ("Embedding", "OneHot"))
def test_tokens_outside_the_table_are_refused(make, case):
    body = BODIES[case](make)
    program = fastrnn.with_heads(fastrnn.Sequential(*body), a=make.linear())
    tokens = np.zeros((3, 2), np.int32)
    assert np.array_equal(program(tokens)[0]["a"], program(tokens.tolist())[0]["a"])
    for wrong in (-1, body[0].tokens):
        with pytest.raises(ValueError, match=rf"{wrong}.*body\.0: {case}"):
            program(np.full((3, 2), wrong))
    with pytest.raises(TypeError, match=r"^Program: expected x to hold int64, got float64"):
        program(np.zeros((3, 2)))


def test_too_few_steps_for_a_convolution_are_refused(make):
    program = fastrnn.with_heads(make.convolution(), a=make.linear())
    with pytest.raises(ValueError, match=r"body\.0: Conv1d"):
        program(np.zeros((2, 1, 4), np.float32))


class Mine(fastrnn.Dropout):
    pass


def test_what_does_not_fit_is_refused(make):
    body = make.recurrent()
    first = make.over_time | {"batch_first": True}
    other = fastrnn.GRU.from_state_dict(make.recurrent("GRU").tensors, **first)
    cell = fastrnn.GRUCell.from_state_dict(make.arrays(weight_ih=(12, 4), weight_hh=(12, 4)))
    slow = fastrnn.Linear.from_state_dict(make.arrays(weight=(3, 4)), threads=1)
    for heads, error, text in (
        ({}, ValueError, "with_heads: expected at least one head, got none"),
        ({"a": 3}, TypeError, "with_heads: expected a to be a layer or a Sequential of fastrnn, got 3"),
        ({"a": make.linear(5)}, ValueError, "with_heads: a: Sequential: layer 1, .*: expected 5 features"),
        ({"a": make.embedding()}, ValueError, "with_heads: a: .* expected layers of tokens first"),
        ({"a": fastrnn.FinalState()}, ValueError, "with_heads: a: .* expected a bidirectional layer before"),
        ({"a": cell}, ValueError, "with_heads: a: Sequential: expected layers over sequences"),
        ({"a": other}, ValueError, "with_heads: a: Sequential: expected one batch_first for all layers"),
        ({"a": slow}, ValueError, "with_heads: expected one threads for all layers, got None and 1"),
        ({"a": Mine()}, TypeError, "with_heads: expected layers of fastrnn's own classes, got Mine"),
    ):
        with pytest.raises(error, match=f"^{text}"):
            fastrnn.with_heads(body, **heads)
    with pytest.raises(TypeError, match=r"^with_heads: expected body to be a layer"):
        fastrnn.with_heads(None, a=body)
    with pytest.raises(ValueError, match=r"^with_heads: body: Sequential: expected layers over sequences"):
        fastrnn.with_heads(cell, a=body)
    with pytest.raises(ValueError, match=r"^with_heads: expected heads that take the same .*, got 4 and 5"):
        fastrnn.with_heads(fastrnn.ReLU(), a=make.linear(), b=make.linear(5))
    with pytest.raises(ValueError, match=r"^with_heads: expected one batch_first for all layers"):
        fastrnn.with_heads(make.linear(4, 4), a=make.recurrent(), b=other)


def test_heads_may_have_the_names_of_arguments(make):
    heads = {"body": make.linear(), "x": make.linear(), "state": make.linear()}
    outputs, _ = fastrnn.with_heads(make.recurrent(), **heads)(input_of(make, [make.linear()]))
    assert list(outputs) == list(heads)
