"""``fastrnn bench``: that it compares, counts and names rightly. No test looks at a time."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import make_layer, random_layer, random_spec, random_tensors

import fastrnn
from bench.cases import Case
from fastrnn.benchmark.block import bench_block, print_block
from fastrnn.benchmark.engines import OURS, PEERS, PINNED, Engine, Job, LeftOut
from fastrnn.benchmark.measure import compare_outputs, measure
from fastrnn.benchmark.model import bench_model, print_result, works_of
from fastrnn.benchmark.table import best_peer, duration, left_out_notes, missing_notes, ratio_to_best
from fastrnn.benchmark.tail import FACTORS, MOST_BINS, histogram, histogram_lines, tail
from fastrnn.benchmark.work import Work, live_specs, ragged_lengths
from fastrnn.cli import main

# ---------------------------------------------------------------- engines


def linear(rng, columns, rows, bias=True):
    tensors = {"weight": rng.standard_normal((rows, columns)).astype(np.float32)}
    tensors |= {"bias": rng.standard_normal(rows).astype(np.float32)} if bias else {}
    return fastrnn.Linear.from_state_dict(tensors)


def float_layer(rng, *arguments, **options):
    return random_layer(rng, *arguments, precision="float32", **options)


def relu_layer(rng, bidirectional):
    spec = random_spec("rnn_relu", 5, 6, num_layers=2, bidirectional=bidirectional)
    return make_layer(spec, random_tensors(rng, spec))


def embedding(rng):
    return fastrnn.Embedding.from_state_dict({"weight": rng.standard_normal((7, 5))})


def layer_norm(rng):
    return fastrnn.LayerNorm.from_state_dict({"weight": rng.random(6), "bias": rng.random(6)}, eps=1e-3)


# Together they have every kind of layer, and recurrent ones with every option that ONNX has too.
MODELS = {
    "lstm": lambda rng: [float_layer(rng, "LSTM", 5, 6)],
    "gru": lambda rng: [float_layer(rng, "GRU", 5, 6, bias=False)],
    "stack": lambda rng: [embedding(rng), float_layer(rng, "LSTM", 5, 6, num_layers=2), fastrnn.Last(),
                          linear(rng, 6, 3), fastrnn.LogSoftmax(-1)],
    "batch_first": lambda rng: [fastrnn.OneHot(5), float_layer(rng, "GRU", 5, 6, batch_first=True),
                                layer_norm(rng), fastrnn.Dropout(), fastrnn.Softmax(2)],
    "two": lambda rng: [linear(rng, 4, 5, bias=False), fastrnn.ReLU(), float_layer(rng, "RNN", 5, 6),
                        fastrnn.LayerNorm(6), float_layer(rng, "LSTM", 6, 6), fastrnn.Sigmoid()],
    "relu": lambda rng: [relu_layer(rng, False), fastrnn.Tanh()],
    "last": lambda rng: [float_layer(rng, "LSTM", 5, 6, batch_first=True), fastrnn.Last()],
    "both_ways": lambda rng: [relu_layer(rng, True), fastrnn.Dropout()],
    "gru_both_ways": lambda rng: [float_layer(rng, "GRU", 5, 6, bidirectional=True, batch_first=True)],
}  # fmt: skip


def outputs(engine, work, calls=3):
    with engine.active():
        job = engine.build(work)
        result = []
        for _ in range(calls):
            job.call()
            result.append(np.array(job.output()))
    return np.stack(result)


def peer(name):
    engine = next(engine for engine in PEERS if engine.name == name)
    for package in engine.needs:
        pytest.importorskip(package)
    return engine


RUNS = [(model, "sequence") for model in MODELS]
RUNS += [(model, mode) for model in MODELS if not model.endswith("both_ways") for mode in ("step", "block")]


@pytest.mark.parametrize("model, mode", RUNS)
@pytest.mark.parametrize("name", ("torch", "onnxruntime", "openvino"))
def test_engines_agree(rng, name, model, mode):
    """The outputs of three calls. In steps and blocks the state is carried from call to call."""
    layers = MODELS[model](rng)
    specs = live_specs("", layers) if mode == "block" else tuple(layer.spec() for layer in layers)
    for B in (1, 3):
        work = Work(specs, T=1 if mode == "step" else 4, B=B, mode=mode)
        wanted = outputs(OURS, work)
        if work.keeps_state:
            assert not np.array_equal(wanted[0], wanted[1])
        found = compare_outputs(outputs(peer(name), work), wanted, "float32")
        assert found["difference"] < 1e-5


@pytest.mark.parametrize(
    "options, what",
    (
        ({"proj_size": 4}, "proj_size"),
        ({"precision": "float64"}, "float64"),
        ({"precision": "float64", "T": 1, "mode": "step"}, "float64"),
        ({"precision": "float64", "T": 1, "mode": "step", "num_layers": 2}, "float64"),
    ),
)
def test_what_only_torch_has(options, what):
    pytest.importorskip("torch")
    work = Case("LSTM", 5, 6, **{"T": 7, "B": 4, **options}).work()
    found = measure(work, rounds=1, round_seconds=1e-4)
    assert found["torch"]["difference"] < (1e-12 if what == "float64" else 1e-5)
    for name in ("onnxruntime", "openvino"):
        if name in found:
            assert found[name] == {"left_out": f"no {what}"}


def test_every_engine_takes_lengths():
    work = Case("LSTM", 5, 6, T=7, B=4, is_ragged=True).work()
    for name, record in measure(work, rounds=1, round_seconds=1e-4).items():
        assert record["difference"] < 1e-5, name


def test_ragged_last_step_agrees(rng):
    pytest.importorskip("torch")
    for batch_first in (False, True):
        layers = [float_layer(rng, "GRU", 5, 6, batch_first=batch_first), fastrnn.Last()]
        work = Work(tuple(layer.spec() for layer in layers), T=9, B=5, lengths=ragged_lengths(9, 5))
        found = compare_outputs(outputs(peer("torch"), work), outputs(OURS, work), "float32")
        assert found["difference"] < 1e-5


def test_ragged_lengths_are_of_all_sizes():
    lengths = ragged_lengths(100, 32)
    assert max(lengths) == 100 and min(lengths) >= 1 and len(set(lengths)) > 10
    assert ragged_lengths(100, 1) == (100,)


class Fake(Engine):
    """An engine that adds an error to our output, or raises one."""

    name = "fake"

    def __init__(self, wrong=0.0, error=None):
        self.wrong, self.error = wrong, error

    def version(self):
        return "1"

    def build(self, work):
        if self.error is not None:
            raise self.error
        job = OURS.build(work)
        return Job(job.call, lambda: job.output() + self.wrong)


@pytest.mark.parametrize(
    "engine, words",
    (
        (Fake(wrong=0.01), "its output is 0.01 away from ours"),
        (Fake(wrong=np.nan), "its output is nan away from ours"),
        (Fake(error=LeftOut("no such thing")), "no such thing"),
        (Fake(error=RuntimeError("broken")), "RuntimeError: broken"),
    ),
)
def test_a_wrong_answer_has_no_time(engine, words):
    found = measure(Case("LSTM", 3, 4, T=5).work(), [engine], rounds=1, round_seconds=1e-4)
    assert found["fake"]["left_out"] == words and "microseconds" not in found["fake"]
    assert ratio_to_best(found) is None
    assert left_out_notes({"a": found, "b": found}) == [f"fake: {words} (a; b)"]


def test_a_right_answer_has_times():
    found = measure(Case("GRU", 3, 4, mode="step").work(), [Fake()], rounds=2, round_seconds=1e-4)
    for record in found.values():
        low, high = record["quartiles"]
        assert 0 < low <= record["microseconds"] <= high and record["calls"] >= 20
        assert record["p50"] <= record["p99"] <= record["p99.9"] <= record["largest"]
    assert best_peer(found) == ("fake", found["fake"]["microseconds"])


def test_duration_has_three_digits():
    texts = ["0.32 us", "4.12 us", "65.0 us", "999 us", "1.00 ms", "12.3 ms", "1.20 s", "1200 s"]
    assert [duration(us) for us in (0.321, 4.12, 65, 999.4, 999.6, 12345, 1.2e6, 1.2e9)] == texts
    texts = ["9.99 us", "10.0 us", "99.9 us", "100 us"]
    assert [duration(us) for us in (9.994, 9.996, 99.94, 99.96)] == texts


# ---------------------------------------------------------------- the command


def test_bench_of_a_model(rng, tmp_path, capsys):
    model = fastrnn.Sequential(float_layer(rng, "LSTM", 3, 4), linear(rng, 4, 2))
    model.save(tmp_path / "m")
    command = ["bench", str(tmp_path / "m"), "--steps", "5", "--batch", "2", "--rounds", "1"]
    assert main([*command, "--json", "-o", str(tmp_path / "r.json")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "r.json").read_text())
    assert [work["name"] for work in printed["works"]] == [
        "one step, 1 row",
        "5 steps, 1 row",
        "5 steps, 2 rows",
    ]
    for work in printed["works"]:
        assert work["engines"]["fastrnn"]["microseconds"] > 0
        for name in printed["engines"]:
            assert work["engines"][name]["difference"] < 1e-5
    assert main(command) == 0
    out = capsys.readouterr().out
    model, *tables = out.splitlines()
    assert model == "Sequential(LSTM(3, 4), Linear(4, 2))"
    assert [line.split() for line in tables if line.startswith("engine")] == [
        ["engine", "mean", "p50", "p99", "time", "/", "fastrnn's"],
        *[["engine", "median", "time", "/", "fastrnn's"]] * 2,
    ]
    assert "one step, 1 row" in tables and "5 steps, 2 rows" in tables
    assert max(map(len, tables)) <= 60


BLOCK = ("--block", "4", "--rate", "48000", "--rounds", "1")


def test_bench_of_blocks(rng, tmp_path, capsys):
    """Also of a model with a Last, which passes on every step then, and a softmax over another axis."""
    layers = [float_layer(rng, "LSTM", 3, 4), fastrnn.Last(), linear(rng, 4, 2), fastrnn.LogSoftmax(1)]
    fastrnn.Sequential(*layers).save(tmp_path / "m")
    assert main(["bench", str(tmp_path / "m"), *BLOCK, "--json", "-o", str(tmp_path / "r.json")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert (result["block"], result["rate"]) == (4, 48000) and result["budget"] == pytest.approx(4e6 / 48000)
    (work,) = result["works"]
    assert (work["mode"], work["T"]) == ("block", 4)
    for name in result["engines"]:
        record = work["engines"][name]
        assert record["difference"] < 1e-5 and record["warm_up"] > 0 and record["calls"] >= 200
        assert sum(record["histogram"]["counts"]) == record["calls"] >= record["missed"]
    assert main(["bench", str(tmp_path / "m"), *BLOCK]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert "blocks of 4 at 48000 a second: 83.3 us each, the budget" in lines
    assert "1 round; each times " in "".join(lines) and "that warm up and are not counted" in "".join(lines)
    assert [line.split() for line in lines if line.startswith("engine")] == [
        ["engine", "p50", "p99", "p99.9", "largest"],
        ["engine", "p50", "p99", "p99.9", "largest", "missed"],
    ]
    assert "fastrnn: blocks by the time that they took" in lines


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["--block", "64"], "fastrnn bench: expected --rate with --block, got --block alone."),
        (["--rate", "48000"], "fastrnn bench: expected --block with --rate, got --rate alone."),
        (["--block", "64", "--rate", "0"], "--rate: expected a number above 0"),
    ),
)
def test_a_block_wants_a_rate(golden, capsys, arguments, words):
    path = str(golden / "files" / "lstm_zip.pt")
    try:
        status = main(["bench", path, *arguments])
    except SystemExit as ended:
        status = ended.code
    assert status == 2 and words in capsys.readouterr().err


def test_a_model_that_cannot_stream_has_no_blocks(rng, tmp_path, capsys):
    fastrnn.Sequential(random_layer(rng, "GRU", 3, 4, bidirectional=True)).save(tmp_path / "both.safetensors")
    assert main(["bench", str(tmp_path / "both.safetensors"), *BLOCK]) == 2
    err = capsys.readouterr().err
    assert "both.safetensors: expected layers that run forward, got GRU(3, 4" in err


def test_quantiles_in_a_table_are_of_the_same_calls(capsys):
    """A call in a row of many may take longer than the 99th percentile of single calls."""
    record = {"microseconds": 9.0, "p50": 2.0, "p99": 3.0}
    machine = {"model": "m", "processor": "p", "engines": {}, "not_installed": {}}
    print_result({**machine, "works": [{"name": "one step, 1 row", "engines": {"fastrnn": record}}]})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-3:-1]] == [
        ["engine", "mean", "p50", "p99", "time", "/", "fastrnn's"],
        ["fastrnn", "9.00", "us", "2.00", "us", "3.00", "us", "-"],
    ]
    assert lines[-1] == "mean: of calls in a row; p50 and p99: of single calls"


def test_tail_of_calls():
    found = tail([1000] * 98 + [2000, 9000], deadline=2e-6)
    assert (found["p50"], found["largest"], found["calls"], found["missed"]) == (1, 9, 100, 2)
    assert found["p99"] == pytest.approx(2.07) and found["p99.9"] == pytest.approx(np.quantile([2, 9], 0.901))
    assert sum(found["histogram"]["counts"]) == 100 and 2.0 in found["histogram"]["edges"]
    assert "missed" not in tail([1000])


@pytest.mark.parametrize("spread", (0.01, 0.5, 2, 3))
def test_histogram_is_spaced_by_one_factor(rng, spread):
    times = np.maximum(1e-3, 50 * np.exp(rng.standard_normal(1000) * spread))  # none below a nanosecond
    times[:3] = (20, 40, 80)  # on edges
    edges, counts = histogram(times, 40)
    assert len(counts) <= MOST_BINS and len(edges) == len(counts) + 1 and counts[0] > 0 and counts[-1] > 0
    np.testing.assert_allclose(edges[1:] / edges[:-1], edges[1] / edges[0])
    wanted = [((low <= times) & (times < high)).sum() for low, high in pairwise(edges)]
    assert counts.tolist() == wanted
    assert 40 in edges
    narrower = [factor for factor in FACTORS if factor < 0.99 * edges[1] / edges[0]]
    octaves = np.log2(times.max() / times.min())
    assert all(octaves / np.log2(factor) > MOST_BINS - 2 for factor in narrower)


def test_histogram_is_drawn_in_60_columns():
    lines = list(histogram_lines([500.0, 1000.0, 2000.0, 4000.0], [123_456_789, 1, 0], 1000.0))
    assert [line.split()[0] for line in lines] == ["500", "1.00", "1.00", "2.00"]
    assert lines[0].count("#") == 36 and lines[0].endswith(" 123,456,789") and lines[1].endswith("the budget")
    assert lines[2].count("#") == 1 and lines[3].count("#") == 0
    assert max(map(len, lines)) <= 60


def test_missing_packages_are_named_with_their_remedy(monkeypatch, capsys):
    monkeypatch.setattr("fastrnn.benchmark.engines.find_spec", lambda name: None if name == "onnx" else name)
    missing = {engine.name: engine.missing() for engine in PEERS if not engine.is_installed()}
    assert missing_notes({"not_installed": missing}) == [
        "onnxruntime: onnx is not installed",
        "    pip install onnx",
        "openvino: onnx is not installed",
        "    pip install onnx",
    ]
    assert missing_notes({"not_installed": {"openvino": ["onnx", "openvino"]}}) == [
        "openvino: onnx and openvino are not installed",
        "    pip install onnx openvino",
    ]


def test_the_remedies_are_those_of_the_extra():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    extra = next(line for line in text.splitlines() if line.startswith("bench ="))
    for engine in PEERS:
        for package in engine.needs:
            assert f'"{PINNED.get(package, package)}' in extra


def test_bench_without_a_peer(rng, monkeypatch, capsys):
    monkeypatch.setattr("fastrnn.benchmark.engines.find_spec", lambda name: None)
    model = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4, bidirectional=True))
    result = bench_model(model, T=3, B=1, rounds=1, round_seconds=1e-4)
    assert [work["name"] for work in result["works"]] == ["3 steps, 1 row"]
    assert result["works"][0]["ratio"] is None and set(result["works"][0]["engines"]) == {"fastrnn"}
    print_result(result)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6:] == [
        "torch: torch is not installed",
        "    pip install torch==2.13.0",
        "onnxruntime: onnx and onnxruntime are not installed",
        "    pip install onnx onnxruntime",
        "openvino: onnx and openvino are not installed",
        "    pip install onnx openvino",
    ]
    forward = fastrnn.Sequential(random_layer(rng, "GRU", 3, 4))
    print_block(bench_block(forward, "m", 2, 100, rounds=1, round_seconds=1e-4))
    assert capsys.readouterr().out.splitlines()[-6:] == lines[-6:]


def test_bench_refuses_a_folder_that_is_not_there(golden, capsys):
    assert main(["bench", str(golden / "files" / "lstm_zip.pt"), "-o", "no/such/folder/r.json"]) == 2
    assert "No such folder" in capsys.readouterr().err


def test_bench_of_weights_that_are_no_numbers(tmp_path, capsys):
    np.savez(tmp_path / "nan.npz", weight_ih_l0=np.ones((4, 3)), weight_hh_l0=np.full((4, 1), np.nan))
    assert main(["bench", str(tmp_path / "nan.npz"), "--rounds", "1"]) == 2
    assert "fastrnn bench: model: expected finite outputs, got NaN or infinity." in capsys.readouterr().err


def test_works_of_tokens_and_batch_first(rng):
    model = fastrnn.Sequential(embedding(rng), float_layer(rng, "GRU", 5, 6, batch_first=True))
    works = works_of(model, T=5, B=3)
    assert works["5 steps, 3 rows"].x().shape == (3, 5) and works["one step, 1 row"].x().dtype.kind == "i"
