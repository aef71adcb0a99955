"""Exported torch modules that run chunk by chunk, with the bits of the whole sequence."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from models_to_stream import CASES  # noqa: E402  (after importorskip)
from test_program_pools import check_chunks  # noqa: E402
from test_program_streams import flat, streamed  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.engine import backends  # noqa: E402

ZOO = Path(os.environ.get("FASTRNN_ZOO", Path(__file__).resolve().parents[2] / "shared" / "zoo"))
PROGRAMS = {}


def exported(name):
    """The program of a case, made once."""
    if name not in PROGRAMS:
        case = CASES[name]
        torch.manual_seed(0)
        PROGRAMS[name] = fastrnn.export(case.make().eval(), case.inputs(2, 36), dynamic=case.dynamic)
    return PROGRAMS[name]


def at_precision(name, precision):
    """The program of a case at a precision, made once."""
    if (name, precision) not in PROGRAMS:
        PROGRAMS[name, precision] = fastrnn.Program(exported(name).spec, precision=precision)
    return PROGRAMS[name, precision]


PRECISIONS = ("float32", "bfloat16", "int8") if backends.ISAS else ("float32",)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 9), max_size=24), rows=st.integers(1, 3))
def test_any_chunks_give_the_bits_of_the_whole(name, precision, cuts, rows):
    case, model = CASES[name], at_precision(name, precision)
    torch.manual_seed(len(cuts))
    x = case.inputs(rows, 24)[0].numpy()
    stream = model.stream()
    assert stream.lag == case.lag
    for got, wanted in zip(streamed(stream, x, case.axis, cuts), flat(model(x)), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_streams_of_a_pool_have_the_bits_of_each_alone(name, precision, rng):
    torch.manual_seed(0)
    x = CASES[name].inputs(10, 24)[0].numpy()
    check_chunks(at_precision(name, precision), x, CASES[name].axis, rng)


def test_frame_by_frame(rng):
    """The steps of a speech enhancer are its whole result."""
    model = exported("Enhancer")
    x = rng.standard_normal((1, 9, 12, 2), dtype="float32")
    stream = model.stream()
    frames = [stream.step(x[:, :, t]) for t in range(12)]
    np.testing.assert_array_equal(np.stack(frames, 2), model(x))


def test_what_looks_ahead_is_named():
    stream = exported("LooksAhead").stream()
    assert [words.split(" at ")[0] for words in stream.looks_ahead] == [
        "conv1d looks 1 ahead",
        "conv1d looks 2 ahead",
    ]


# ---------------------------------------------------------------- models that keep states themselves


class Written(torch.nn.Module):
    """Its state is a buffer that the forward writes to."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = torch.nn.LSTM(1, 6), torch.nn.Linear(6, 1)
        self.register_buffer("h", torch.zeros(1, 2, 6))
        self.register_buffer("c", torch.zeros(1, 2, 6))

    def forward(self, x):
        y, (h, c) = self.rnn(x, (self.h, self.c))
        self.h.copy_(h)
        self.c.copy_(c)
        return self.out(y) + x


def test_buffers_that_are_written_are_carried(rng):
    torch.manual_seed(0)
    model = fastrnn.export(Written().eval(), (torch.randn(12, 2, 1),), dynamic=({0: "T"},))
    x = rng.standard_normal((20, 2, 1), dtype="float32")
    stream = model.stream()
    got = np.concatenate([stream.run(x[a:b]) for a, b in ((0, 1), (1, 8), (8, 20))])
    np.testing.assert_array_equal(got, model(x))
    assert {name: array.shape for name, array in stream.state.items()} == {"h": (1, 2, 6), "c": (1, 2, 6)}


class Detector(torch.nn.Module):
    """One block of samples: a convolution as a filter bank, a cell, a score."""

    def __init__(self):
        super().__init__()
        self.bank, self.cell = torch.nn.Conv1d(1, 8, 16, stride=8), torch.nn.LSTMCell(8, 8)
        self.out = torch.nn.Linear(8, 1)

    def forward(self, x, state):
        y = self.bank(torch.nn.functional.pad(x, (0, 8), mode="reflect")[:, None]).relu().mean(-1)
        h, c = self.cell(y, (state[0], state[1]))
        return torch.sigmoid(self.out(h)), torch.stack([h, c])


def test_declared_states_are_fed_back(rng):
    torch.manual_seed(0)
    args = torch.randn(2, 64), torch.zeros(2, 2, 8)
    model = fastrnn.export(Detector().eval(), args, dynamic=({0: "B"}, {1: "B"}), state=((1, 1),))
    blocks = rng.standard_normal((5, 3, 64), dtype="float32")
    stream, state = model.stream(), np.zeros((2, 3, 8), "float32")
    pool = model.pool()
    ids = [pool.open() for _ in range(3)]
    for block in blocks:
        score, state = model(block, state)
        np.testing.assert_array_equal(stream.step(block), score)
        np.testing.assert_array_equal(pool.step(ids, block), score)
    np.testing.assert_array_equal(stream.state["state"], state)


# ---------------------------------------------------------------- larger models, where they are


@pytest.fixture(scope="module")
def zoo():
    """The folder of larger models; its tests are skipped where it is missing."""
    if not (ZOO / "zoo.py").is_file():
        pytest.skip(f"no models at {ZOO}")
    sys.path.insert(0, str(ZOO))
    import zoo

    sys.path.remove(str(ZOO))
    return zoo.CASES


def taken(zoo, name):
    case = zoo[name]
    return fastrnn.export(case.build(), case.args(), dynamic=case.dynamic, state=case.state)


def test_gtcrn_runs_frame_by_frame(zoo):
    model = taken(zoo, "gtcrn")
    x = zoo["gtcrn"].args(seed=3, B=2, T=20)[0].numpy()
    stream = model.stream()
    frames = [stream.step(x[:, :, t]) for t in range(20)]
    assert stream.lag == 0 and stream.looks_ahead == ()
    np.testing.assert_array_equal(np.stack(frames, 2), model(x))
    for cuts in ([3, 6], [1, 2, 6, 1], [19]):
        np.testing.assert_array_equal(streamed(model.stream(), x, 2, cuts)[0], model(x))
    pool = model.pool()
    ids = [pool.open(), pool.open()]
    frames = [pool.step(ids, x[:, :, t]) for t in range(20)]
    np.testing.assert_array_equal(np.stack(frames, 2), model(x))


def test_silero_runs_block_by_block(zoo):
    model = taken(zoo, "silero")
    stream, state = model.stream(), np.zeros((2, 3, 128), "float32")
    for seed in range(6):
        x = zoo["silero"].args(seed=seed, B=3)[0].numpy()
        score, state = model(x, state)
        np.testing.assert_array_equal(stream.step(x), score)


def test_a_language_model_carries_its_declared_states(zoo):
    model = taken(zoo, "awd_lstm")
    x = zoo["awd_lstm"].args(seed=1, B=2, T=15)[0].numpy()
    stream = model.stream()
    got = np.concatenate([stream.run(x[a:b]) for a, b in ((0, 4), (4, 5), (5, 15))])
    zeros = [(np.zeros((1, 2, n), "float32"), np.zeros((1, 2, n), "float32")) for n in (24, 24, 16)]
    np.testing.assert_array_equal(got, model(x, zeros)[0])


def test_a_loop_with_static_inputs(zoo):
    model = taken(zoo, "ealstm")
    x = {name: array.numpy() for name, array in zoo["ealstm"].args(seed=1, B=2, T=9)[0].items()}
    stream, whole = model.stream(), model(x)
    got = [stream.run({**x, "x_d": x["x_d"][:, a:b]}) for a, b in ((0, 4), (4, 5), (5, 9))]
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in got], 1), whole[name])


@pytest.mark.parametrize(
    "name, words", [("openunmix", "bidirectional lstm"), ("seq2seq", "what all steps give")]
)
def test_models_of_the_whole_sequence_are_refused(zoo, name, words):
    with pytest.raises(ValueError, match=words):
        taken(zoo, name).stream()
