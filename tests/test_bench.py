"""The benchmark: that it compares, counts and names rightly. No test looks at a time."""

import json
import shlex
import shutil
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import make_layer, random_layer, random_spec, random_tensors

import bench.probe
import bench.run
import bench.startup
import fastrnn
from bench import bits
from bench.__main__ import main as bench_main
from bench.cases import (
    GRID,
    GRID_OF_THREADS,
    LONG_TARGETS,
    PEERS,
    SHOWN,
    SHOWN_OF_THREADS,
    STEP_TARGETS,
    Case,
)
from bench.compare import compare
from bench.probe import Limits, NoCompiler, probe
from bench.report import markdown, print_report
from bench.run import RESULT_VERSION
from fastrnn.benchmark.block import bench_block, print_block
from fastrnn.benchmark.engines import OURS, PINNED, Engine, LeftOut, Runner
from fastrnn.benchmark.engines import PEERS as PEER_ENGINES
from fastrnn.benchmark.measure import compare_outputs, measure
from fastrnn.benchmark.model import bench_model, print_result, works_of
from fastrnn.benchmark.table import best_peer, duration, left_out_notes, missing_notes, ratio_to_best
from fastrnn.benchmark.tail import MOST_BINS, histogram, histogram_lines, tail
from fastrnn.benchmark.work import Work, live_specs, ragged_lengths
from fastrnn.cli import main

LIMITS = Limits("avx2", {"float32": 200.0, "float64": 100.0}, [(2**14, 400.0), (2**28, 40.0)], {})


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


# Together they have every kind of layer, the cells with every option that ONNX has too.
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
        runner = engine.build(work)
        result = []
        for _ in range(calls):
            runner.call()
            result.append(np.array(runner.output()))
    return np.stack(result)


def peer(name):
    engine = next(engine for engine in PEER_ENGINES if engine.name == name)
    for package in engine.needs:
        pytest.importorskip(package)
    return engine


RUNS = [(model, "sequence") for model in MODELS]
RUNS += [(model, mode) for model in MODELS if not model.endswith("both_ways") for mode in ("step", "block")]


@pytest.mark.parametrize("model, mode", RUNS)
@pytest.mark.parametrize("name", ("torch", "onnxruntime", "openvino"))
def test_engines_agree(rng, name, model, mode):
    """The outputs of three calls, states carried in the steps."""
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
    """An engine whose output is ours, but for what a test adds; or that raises."""

    name = "fake"

    def __init__(self, wrong=0.0, error=None):
        self.wrong, self.error = wrong, error

    def version(self):
        return "1"

    def build(self, work):
        if self.error is not None:
            raise self.error
        runner = OURS.build(work)
        return Runner(runner.call, lambda: runner.output() + self.wrong)


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
        assert low <= record["microseconds"] <= high and record["p99"] > 0 and record["calls"] >= 20
        assert 0 < record["p50"] <= record["p99"] <= record["p99.9"] <= record["largest"]
    assert best_peer(found) == ("fake", found["fake"]["microseconds"])


def test_duration_has_three_digits():
    texts = ["0.32 us", "4.12 us", "65.0 us", "999 us", "1.00 ms", "12.3 ms", "1.20 s", "1200 s"]
    assert [duration(us) for us in (0.321, 4.12, 65, 999.4, 999.6, 12345, 1.2e6, 1.2e9)] == texts


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
        ["engine", "median", "p99", "time", "/", "fastrnn's"],
        *[["engine", "median", "time", "/", "fastrnn's"]] * 2,
    ]
    assert "one step, 1 row" in tables and "5 steps, 2 rows" in tables
    assert max(map(len, tables)) <= 60


BLOCK = ("--block", "4", "--rate", "48000", "--rounds", "1")


def test_bench_of_blocks(rng, tmp_path, capsys):
    """Live, also where only a stream takes every step on behind Last, and a softmax names another axis."""
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
    assert any("before them warm up and are not counted" in line for line in lines)
    assert [line.split() for line in lines if line.startswith("engine")] == [
        ["engine", "p50", "p99", "p99.9", "largest"],
        ["engine", "p50", "p99", "p99.9", "largest", "missed"],
    ]
    assert "fastrnn: blocks that took from ... on" in lines


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["--block", "64"], "bench: expected --rate with --block, got --block alone."),
        (["--rate", "48000"], "bench: expected --block with --rate, got --rate alone."),
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


def test_tail_of_calls():
    found = tail([1000] * 98 + [2000, 9000], deadline=2e-6)
    assert (found["p50"], found["largest"], found["calls"], found["missed"]) == (1, 9, 100, 2)
    assert found["p99"] == pytest.approx(2.07) and found["p99.9"] == pytest.approx(np.quantile([2, 9], 0.901))
    assert sum(found["histogram"]["counts"]) == 100
    assert "missed" not in tail([1000])


@pytest.mark.parametrize("spread", (0.01, 0.5, 2, 3))
def test_histogram_is_spaced_by_one_factor(rng, spread):
    times = 50 * np.exp(rng.standard_normal(1000) * spread)
    times[:3] = (20, 40, 80)  # on edges
    edges, counts = histogram(times, 40)
    assert len(counts) <= MOST_BINS and len(edges) == len(counts) + 1 and counts[0] > 0 and counts[-1] > 0
    np.testing.assert_allclose(edges[1:] / edges[:-1], edges[1] / edges[0])
    wanted = [((low <= times) & (times < high)).sum() for low, high in pairwise(edges)]
    assert counts.tolist() == wanted
    if edges[0] < 40 < edges[-1]:
        assert 40 in edges


def test_histogram_is_drawn_in_60_columns():
    lines = list(histogram_lines([500.0, 1000.0, 2000.0, 4000.0], [123_456_789, 1, 0], 1000.0))
    assert [line.split()[0] for line in lines] == ["500", "1.00", "1.00", "2.00"]
    assert lines[0].count("#") == 36 and lines[0].endswith(" 123,456,789") and lines[1].endswith("the budget")
    assert lines[2].count("#") == 1 and lines[3].count("#") == 0
    assert max(map(len, lines)) <= 60


def test_missing_packages_are_named_with_their_remedy(monkeypatch, capsys):
    monkeypatch.setattr("fastrnn.benchmark.engines.find_spec", lambda name: None if name == "onnx" else name)
    missing = {engine.name: engine.missing() for engine in PEER_ENGINES if not engine.is_installed()}
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
    for engine in PEER_ENGINES:
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


# ---------------------------------------------------------------- the grid


def test_grid_is_whole():
    names = [case.name for case in GRID]
    assert len(set(names)) == len(names) and set(SHOWN) <= set(names)
    assert set(SHOWN_OF_THREADS) <= {case.name for case in GRID_OF_THREADS}
    for kind in ("LSTM", "GRU", "RNN"):
        assert {f"{kind} {size}->{size}, step" for size in STEP_TARGETS} <= set(names)
        assert {f"{kind} {H}->{H}, 100x{B}" for H in (128, 256) for B in (1, 8, 32)} <= set(names)
    assert {f"LSTM 1->{size}, 48000x1" for size in LONG_TARGETS} <= set(names)
    assert {"LSTM 1024->1024, 100x64", "LSTM 256->512, 100x128", "LSTM 256->256 x2 both ways, 100x1"} <= set(
        names
    )
    for words in ("ragged", "proj 64", "float64"):
        assert {f"LSTM 128->128 {words}, 100x{B}" for B in (1, 32)} <= set(names)
    assert all(case.target >= 1 for case in GRID)


def test_operations_and_bytes_of_a_case():
    case = Case("LSTM", 3, 5, T=7, B=2)
    assert case.flops() == 2 * 7 * 2 * 4 * 5 * (3 + 5)
    assert case.bytes() == 4 * (7 * 20 * 5 + 20 * 3 + 7 * 2 * (3 + 5))
    both = Case("GRU", 3, 5, T=7, num_layers=2, bidirectional=True)
    assert both.flops() == 2 * 7 * 2 * (15 * (3 + 5) + 15 * (10 + 5))
    projected = Case("LSTM", 3, 5, T=7, proj_size=2, precision="float64")
    assert projected.flops() == 2 * 7 * (20 * (3 + 2) + 2 * 5)
    ragged = Case("RNN", 3, 5, T=7, B=4, is_ragged=True)
    assert ragged.flops() == 2 * sum(ragged.lengths()) * 5 * 8


def test_limits_of_a_case():
    kind, _, microseconds = Case("RNN", 32, 32, T=10, B=32).limit(LIMITS)
    assert kind == "peak" and microseconds == pytest.approx(10 * 32 * 2 * 32 * 64 / 200e3)
    kind, _, microseconds = Case("RNN", 32, 32, mode="step").limit(LIMITS)
    assert kind == "bandwidth" and microseconds == pytest.approx(4 * 32 * 64 / LIMITS.gigabytes(2**13) / 1e3)
    _, _, microseconds = Case("RNN", 32, 32, T=10).limit(LIMITS)
    reading = 4 * 32 * 32 / LIMITS.gigabytes(2**12) / 1e3
    assert microseconds == pytest.approx(10 * (reading + 2 * 32 * 32 / 200e3))
    kind, wanted, microseconds = Case("RNN", 32, 32, T=10, B=8).limit(LIMITS)
    assert (kind, wanted) == ("peak", None) and microseconds == pytest.approx(10 * 8 * 2 * 32 * 64 / 200e3)


def test_limits_of_a_case_on_two_threads():
    """Each has its share of the weights in a cache of its own; no share of the limit is wanted."""
    step = Case("RNN", 32, 32, mode="step").limit(LIMITS, 2)
    assert step == ("bandwidth", None, pytest.approx(4 * 16 * 64 / LIMITS.gigabytes(2**12) / 1e3))
    sequence = Case("RNN", 32, 32, T=10).limit(LIMITS, 2)
    reading = 4 * 16 * 32 / LIMITS.gigabytes(2**11) / 1e3
    assert sequence == ("bandwidth", None, pytest.approx(10 * (reading + 32 * 32 / 200e3)))
    assert Case("RNN", 32, 32, B=32).limit(LIMITS, 2) == ("peak", None, pytest.approx(32 * 32 * 64 / 200e3))


def test_bandwidth_between_the_points_of_the_curve():
    assert LIMITS.gigabytes(2**14) == 400 and LIMITS.gigabytes(2**28) == 40
    assert LIMITS.gigabytes(2**21) == pytest.approx(220)
    assert LIMITS.gigabytes(2**30) == 40 and LIMITS.gigabytes(100) == 400


# ---------------------------------------------------------------- a run, and what is made of it


@pytest.fixture
def result(monkeypatch):
    """A run of three small cases, on a machine whose limits are known."""
    monkeypatch.setattr(bench.run, "probe", lambda: LIMITS)
    cases = [
        Case("LSTM", 16, 16, mode="step"),
        Case("GRU", 16, 16, T=3, B=32),
        Case("LSTM", 1, 16, T=9, against="rtneural"),
    ]
    return json.loads(json.dumps(bench.run.run(cases, rounds=1, round_seconds=1e-4)))


def test_run_judges_every_case(result):
    step, batch, long = result["cases"]
    assert result["limits"]["gflops"]["float32"] == 200
    assert step["limit"]["kind"] == "bandwidth" and batch["limit"]["kind"] == "peak"
    assert batch["gflops"] == pytest.approx(200 * batch["limit"]["share"])
    recorded = 9 * 0.041 * 250 / 200
    assert long["engines"]["rtneural"]["recorded"] == pytest.approx(recorded)
    assert long["ratio"] == pytest.approx(recorded / long["engines"]["fastrnn"]["microseconds"])
    summary = result["summary"]
    assert set(summary["missed"]) == {
        entry["name"] for entry in result["cases"] if entry["ratio"] and entry["ratio"] < entry["target"]
    }
    assert set(summary["missed_within_limit"]) == {
        entry["name"]
        for entry in result["cases"]
        if entry["name"] in summary["missed"] and entry["limit"]["ratio"] >= entry["target"]
    }
    if len(result["engines"]) > 1:
        ratios = [step["ratio"], batch["ratio"]]
        most = [entry["ratio"] / entry["limit"]["share"] for entry in (step, batch)]
        assert [step["limit"]["ratio"], batch["limit"]["ratio"]] == pytest.approx(most)
        assert summary["geometric_mean_at_limit"] == pytest.approx(np.sqrt(np.prod(most)))
        assert summary["geometric_mean"] == pytest.approx(np.sqrt(np.prod(ratios)))
        assert summary["minimum"] == min(*ratios, long["peer_ratio"])


def test_pools_are_judged_beside_other_ways(monkeypatch, capsys):
    """The same streams in random order and one by one; all engines give the same outputs."""
    monkeypatch.setattr(bench.run, "probe", lambda: LIMITS)
    monkeypatch.setattr(bench.run, "POOL_STREAMS", 70)
    monkeypatch.setattr(bench.run, "POOL_RATIOS", {"a lone stream": 1e9, "streams one by one": 1e-9})
    monkeypatch.setattr(bench.run, "POOL_ORDER", 0)
    cases = [
        Case("GRU", 16, 16, mode="step"),
        *(Case("GRU", 16, 16, B=B, mode="pool", against="onnxruntime") for B in (3, 70)),
    ]
    found = json.loads(json.dumps(bench.run.run(cases, rounds=1, round_seconds=1e-4)))
    step, small, large = found["cases"]
    assert small["name"] == "GRU 16->16, pool of 3" and small["pool_missed"] == []
    for entry in (small, large):
        ours = entry["engines"]["fastrnn"]["microseconds"]
        lone = step["engines"]["fastrnn"]["microseconds"]
        assert entry["pool"]["a lone stream"] == pytest.approx(entry["B"] * lone / ours)
        for name in ("in random order", "streams one by one"):
            assert entry["engines"][name]["difference"] == 0
            assert entry["pool"][name] == pytest.approx(entry["engines"][name]["microseconds"] / ours)
    assert large["pool_missed"] == ["a lone stream", "in random order"]
    assert found["summary"]["missed_pool"] == [
        "GRU 16->16, pool of 70: a lone stream", "GRU 16->16, pool of 70: in random order",
    ]  # fmt: skip
    print_report(found)
    assert "GRU 16->16, pool of 70" in capsys.readouterr().out
    assert "GRU 16->16, pool of 3" in markdown(found)


@pytest.mark.parametrize("is_busy", [False, True])
def test_run_on_two_threads_stands_beside_one(monkeypatch, capsys, is_busy):
    monkeypatch.setattr(bench.run, "probe", lambda: LIMITS)
    cases = [Case("RNN", 16, 16, mode="step"), Case("RNN", 16, 16, T=3, B=32)]
    monkeypatch.setattr(bench.run, "SCALING", {cases[1].name: 1e9})
    monkeypatch.setattr(bench.run, "SCALING_WHILE_BUSY", 1e9)
    found = json.loads(json.dumps(bench.run.run(cases, 1, 1e-4, threads=2, is_busy=is_busy)))
    step, batch = found["cases"]
    for entry in (step, batch):
        times = entry["engines"]
        scaling = times["one thread"]["microseconds"] / times["fastrnn"]["microseconds"]
        assert entry["scaling"] == pytest.approx(scaling) and entry["target"] == bench.cases.MINIMUM
    summary = found["summary"]
    assert summary["missed_scaling"] == [case.name for case in (cases if is_busy else cases[1:])]
    assert summary["sequence_mean"] == (pytest.approx(batch["ratio"]) if batch["ratio"] else None)
    print_report(found)
    out = capsys.readouterr().out
    assert f"cases below the wanted scaling: {1 + is_busy}: " in out
    if is_busy:
        assert found["limits"] is None and step["limit"] is None and "ratio at the limit" not in out
    else:
        assert batch["gflops"] == pytest.approx(400 * batch["limit"]["share"])
        assert "ratio at the limit" in out and "limits of one core" in out
    assert "| scaling |" in markdown(found)


def test_run_without_a_compiler(monkeypatch):
    def refuse():
        raise NoCompiler("cc: not there")

    monkeypatch.setattr(bench.run, "probe", refuse)
    found = bench.run.run([Case("RNN", 4, 4, mode="step")], rounds=1, round_seconds=1e-4)
    assert found["limits"] is None and found["no_limits"] == "cc: not there"
    assert found["cases"][0]["limit"] is None


def test_result_is_shown_and_drawn(result, tmp_path, capsys):
    result["cold_start"] = {"numpy alone": {"median": 60.0}, "fastrnn": {"median": 100.0}}
    result["installed"] = {"fastrnn": {"own": 4e6, "all": 2e8, "with": ["numpy"]}}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(result))
    assert bench_main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "LSTM 16->16, step" in out and "200 GFLOP/s float32" in out and "100 ms" in out
    assert bench_main(["markdown", str(path), "--all"]) == 0
    out = capsys.readouterr().out
    assert "| GRU 16->16, 3x32 |" in out and "| fastrnn | 100 ms | 4.0 MB | 200 MB |" in out
    pytest.importorskip("matplotlib")
    assert bench_main(["plot", str(path), "-o", str(tmp_path / "plots")]) == 0
    names = sorted(file.name for file in (tmp_path / "plots").iterdir())
    assert names == ["roofline.png", "roofline.svg", "steps.png", "steps.svg"]


def test_no_picture_without_matplotlib(tmp_path, capsys, monkeypatch):
    (tmp_path / "r.json").write_text(json.dumps(one_result()))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "bench.plot", raising=False)
    assert bench_main(["plot", str(tmp_path / "r.json"), "-o", str(tmp_path)]) == 2
    assert "python -m bench: plot: expected matplotlib, got none" in capsys.readouterr().err


def test_files_that_are_no_results(tmp_path, capsys):
    (tmp_path / "r.json").write_text("{}")
    (tmp_path / "text").write_text("text")
    for name, words in (
        ("r.json", f"a result of version {RESULT_VERSION}, got None"),
        ("text", "no JSON"),
        ("no", "Errno 2"),
    ):
        assert bench_main(["show", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
    assert bench_main(["--only", "nothing of this name"]) == 2


def record(microseconds, spread=0.01):
    return {"microseconds": microseconds, "quartiles": [microseconds * (1 - spread), microseconds]}


def one_result(**cases):
    entries = [
        {
            "name": name,
            "engines": dict(zip(("fastrnn", "torch", "openvino"), map(record, times), strict=False)),
        }
        for name, times in cases.items()
    ]
    return {"processor": "any", "engines": {}, "version": RESULT_VERSION, "cases": entries}


def test_compare_names_what_changed(tmp_path, capsys):
    before = one_result(a=(10, 20, 30), b=(10, 20), c=(10, 20), d=(10, 20), e=(10,), f=(10, 20), gone=(1,))
    after = one_result(
        a=(12, 20, 30),  # slower
        b=(12, 24),  # the machine is slower
        c=(8, 20),  # faster
        d=(10.3, 20),  # within the noise
        e=(15,),  # no peer to tell
        f=(10, 15),  # the peer is faster
        new=(1,),
    )
    found = compare(before, after)
    assert found["slower"] == pytest.approx({"e": 1.5, "a": 1.2})
    assert found["faster"] == pytest.approx({"c": 0.8})
    assert (found["same"], found["only_before"], found["only_after"]) == (3, ["gone"], ["new"])
    (tmp_path / "before").write_text(json.dumps(before))
    (tmp_path / "after").write_text(json.dumps(after))
    paths = [str(tmp_path / "before"), str(tmp_path / "after")]
    assert bench_main(["compare", *paths]) == 1
    assert "slower: a: 1.20 times the time\n" in capsys.readouterr().out
    assert bench_main(["compare", paths[0], paths[0]]) == 0
    assert bench_main(["compare", *paths, "--threshold", "0.6"]) == 0


def test_compare_leaves_a_noisy_case_alone():
    before, after = one_result(a=(10, 20)), one_result(a=(12, 20))
    after["cases"][0]["engines"]["fastrnn"] = record(12, spread=0.3)
    assert compare(before, after)["slower"] == {}


# ---------------------------------------------------------------- the machine, and a new process


def test_probe_measures_what_is_asked(monkeypatch):
    monkeypatch.setattr(bench.probe, "SECONDS", 2e-4)
    monkeypatch.setattr(bench.probe, "WORKING_SETS", (2**14, 2**16, 2**18))
    try:
        limits = probe()
    except NoCompiler as error:
        pytest.skip(str(error))
    assert set(limits.gflops) == {"float32", "float64"} and min(limits.gflops.values()) > 0
    assert [size for size, _ in limits.bandwidth] == [2**14, 2**16, 2**18]
    assert all(speed > 0 for _, speed in limits.bandwidth)
    higher = replace(limits, gflops={"float32": 1e6, "float64": 0.0}).best(limits)
    assert higher.gflops == {"float32": 1e6, "float64": limits.gflops["float64"]}


def test_probe_builds_for_every_instruction_set():
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    for isa, (width, accumulators, flags) in bench.probe.BUILDS.items():
        if bool(flags) is (isa in ("avx512", "avx2")) and (not flags or isa in fastrnn.engine.backends.ISAS):
            bench.probe._compile([f"-DWIDTH={width}", f"-DACCUMULATORS={accumulators}", *flags])


@pytest.mark.parametrize("compiler", ("/no/such/compiler", "false"))
def test_probe_without_a_compiler(monkeypatch, compiler):
    monkeypatch.setenv("CC", shlex.quote(compiler))
    with pytest.raises(NoCompiler, match=r"such|false"):
        probe()


def test_cold_start_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(bench.startup, "PEERS", ())
    found = bench.startup.cold_starts(1)
    assert set(found) == {"numpy alone", "fastrnn"}
    monkeypatch.setitem(bench.startup.PROGRAMS, "fastrnn", "sys.exit(3)")
    with pytest.raises(RuntimeError, match="fastrnn: expected a first result, got exit status 3"):
        bench.startup.cold_starts(1)


def test_installed_sizes_hold_the_requirements():
    pytest.importorskip("packaging")
    found = bench.startup.installed_sizes()
    assert {"numpy", "scipy", "safetensors"} <= set(found["fastrnn"]["with"])
    for size in found.values():
        assert 0 < size["own"] <= size["all"]


def test_peers_are_those_of_the_grid():
    assert {case.against for case in GRID} == {PEERS, "torch", "onnxruntime", "rtneural"}
    assert {engine.name for engine in PEER_ENGINES} == {"torch", "onnxruntime", "openvino"}


# ---------------------------------------------------------------- bits


def test_bits_that_differ_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bits, "SIZES", ((3, 5),))
    monkeypatch.setattr(bits, "record", lambda: {"here": {n: bits._digest(a) for n, a in bits.cases()}})
    path = tmp_path / "a.json"
    assert bench_main(["bits", "-o", str(path)]) == 0
    assert bench_main(["bits", "--against", str(path)]) == 0
    before = json.loads(path.read_text())["here"]
    names = [name for name, _ in bits.cases()]
    assert (
        len(names) == len(set(names)) == len(before) > 300
        and f"0 of {len(before)} differ" in capsys.readouterr().out
    )
    changed = next(name for name in before if name.startswith("LSTM") and "stream" in name)
    path.write_text(json.dumps({"here": {**before, changed: "0"}, "elsewhere": before}))
    assert bench_main(["bits", "--against", str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == [f"here: {changed}", f"1 of {len(before)} differ"]
    path.write_text(json.dumps({"elsewhere": before}))
    assert bench_main(["bits", "--against", str(path)]) == 2
