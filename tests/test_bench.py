"""``python -m bench``: the grid, a run and what is made of it, comparisons. No test looks at a time."""

import json
import shlex
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

import bench.probe
import bench.run
import bench.startup
import fastrnn
from bench import bits
from bench.__main__ import main
from bench.cases import (
    CHUNKS,
    FOR_THREADS,
    GRID,
    GRID_OF_BUILDS,
    GRID_OF_THREADS,
    LONG_TARGETS,
    ONNX,
    PEERS,
    RTNEURAL,
    SHOWN,
    SHOWN_OF_THREADS,
    STEP_TARGETS,
    TORCH,
    Case,
)
from bench.compare import compare
from bench.probe import BUILDS, Limits, NoCompiler, probe
from bench.report import markdown, print_report
from bench.run import RESULT_VERSION
from fastrnn.benchmark.engines import PEERS as PEER_ENGINES

LIMITS = Limits("avx2", {"float32": 200.0, "float64": 100.0}, [(2**14, 400.0), (2**28, 40.0)], {})


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
    modes = {case.mode for case in GRID_OF_BUILDS}
    assert {*GRID, *FOR_THREADS, *CHUNKS} == {*GRID_OF_BUILDS} and modes == {
        "sequence",
        "step",
        "block",
        "pool",
    }


def test_weights_of_a_case_have_the_usual_scale():
    for tensor in Case("LSTM", 16, 64).work().specs[0].tensors.values():
        assert 0.1 < np.abs(tensor).max() <= 1 / 8


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


def test_run_times_every_case(result):
    assert result["limits"]["gflops"]["float32"] == 200
    assert [entry["name"] for entry in result["cases"]] == [
        "LSTM 16->16, step",
        "GRU 16->16, 3x32",
        "LSTM 1->16, 9x1",
    ]
    for entry in result["cases"]:
        for name in result["engines"]:
            assert entry["engines"][name]["difference"] < 1e-5


def run_with_times(monkeypatch, cases, times, **options):
    """A run in which the engines take these microseconds, by the case's name and their own."""
    monkeypatch.setattr(bench.run, "probe", lambda: LIMITS)
    works = {id(case): case.work(options.get("threads", 1)) for case in cases}
    records = {
        id(works[id(case)]): {name: {"microseconds": us} for name, us in times[case.name].items()}
        for case in cases
    }
    monkeypatch.setattr(Case, "work", lambda case, threads: works[id(case)])
    monkeypatch.setattr(bench.run, "measure", lambda work, *_: records[id(work)])
    return bench.run.run(cases, **options)


def test_run_judges_every_case(monkeypatch):
    """Ratios, shares of the limits and means as they are worked out by hand."""
    step, batch, easy, long, ragged, eight = cases = [
        Case("RNN", 32, 32, mode="step", target=4.0),
        Case("RNN", 32, 32, T=10, B=32, target=3.0),
        Case("RNN", 32, 32, T=10, target=1.1),
        Case("LSTM", 1, 16, T=9, target=2.0, against=RTNEURAL),
        Case("RNN", 32, 32, T=10, B=32, is_ragged=True, target=3.0, against=TORCH),
        Case("RNN", 32, 32, T=10, B=8, against=ONNX),
    ]
    peak = 10 * 32 * 2 * 32 * 64 / 200e3  # microseconds of the batch
    times = {
        step.name: {"fastrnn": 1.0, "torch": 9.0, "onnxruntime": 3.0},
        batch.name: {"fastrnn": 2 * peak, "torch": 2.5 * peak, "onnxruntime": 4 * peak},
        easy.name: {"fastrnn": 10.0, "torch": 12.0},
        long.name: {"fastrnn": 0.3, "torch": 0.24},
        ragged.name: {"fastrnn": 10.0, "torch": 40.0, "openvino": 20.0},
        eight.name: {"fastrnn": 1000.0, "openvino": 2000.0},
    }
    told = []
    result = run_with_times(monkeypatch, cases, times, report=lambda *counts: told.append(counts))
    assert told == [(count, 6) for count in range(1, 7)]
    entries = {entry["name"]: entry for entry in result["cases"]}
    recorded = 9 * 0.041 * 250 / 200
    assert entries[long.name]["engines"]["rtneural"]["recorded"] == pytest.approx(recorded)
    ratios = [entries[case.name]["ratio"] for case in cases]
    assert ratios[-1] is None and ratios[:-1] == pytest.approx([3, 1.25, 1.2, recorded / 0.3, 4])
    assert [entry["peer_ratio"] for entry in result["cases"]] == pytest.approx([3, 1.25, 1.2, 0.8, 2, 2])
    share = 4 * 32 * 64 / LIMITS.gigabytes(2**13) / 1e3
    assert entries[step.name]["limit"] == pytest.approx(
        {"kind": "bandwidth", "wanted": 0.85, "share": share, "ratio": 3 / share}
    )
    assert entries[batch.name]["limit"] == pytest.approx(
        {"kind": "peak", "wanted": 0.9, "share": 0.5, "ratio": 2.5}
    )
    assert entries[batch.name]["gflops"] == pytest.approx(100)
    summary = result["summary"]
    assert summary["missed"] == [step.name, batch.name, long.name]
    assert summary["missed_within_limit"] == [step.name, long.name]
    assert summary["geometric_mean_of"] == 3
    assert summary["geometric_mean"] == pytest.approx((3 * 1.25 * 1.2) ** (1 / 3))
    most = [entries[case.name]["limit"]["ratio"] for case in (step, batch, easy)]
    assert summary["geometric_mean_at_limit"] == pytest.approx(np.prod(most) ** (1 / 3))
    assert (summary["minimum"], summary["minimum_case"]) == (pytest.approx(0.8), long.name)
    assert summary["below_minimum"] == [long.name] and summary["sequence_mean"] is None
    assert summary["below_limit"] == [step.name, batch.name, easy.name, long.name, ragged.name]
    assert entries[eight.name]["limit"]["share"] < 0.1


def test_scaling_and_sequences_are_judged_on_several_threads(monkeypatch):
    cases = [Case("RNN", 32, 32, mode="step"), Case("RNN", 32, 32, T=10), Case("RNN", 32, 32, T=10, B=8)]
    monkeypatch.setattr(bench.run, "SCALING", {case.name: 1.8 for case in cases[1:]})
    times = {
        cases[0].name: {"fastrnn": 1.0, "one thread": 1.0, "torch": 5.0},
        cases[1].name: {"fastrnn": 1.0, "one thread": 1.7, "torch": 2.0},
        cases[2].name: {"fastrnn": 1.0, "one thread": 1.9, "torch": 8.0},
    }
    summary = run_with_times(monkeypatch, cases, times, threads=2)["summary"]
    assert summary["missed_scaling"] == [cases[1].name]
    assert (summary["sequence_mean"], summary["sequence_mean_of"]) == (pytest.approx(4), 2)
    monkeypatch.setattr(bench.run, "SCALING_WHILE_BUSY", 1.75)
    summary = run_with_times(monkeypatch, cases, times, threads=2, is_busy=True)["summary"]
    assert summary["missed_scaling"] == [cases[0].name, cases[1].name]


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
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "LSTM 16->16, step" in out and "200 GFLOP/s float32" in out and "100 ms" in out
    assert main(["markdown", str(path), "--all"]) == 0
    out = capsys.readouterr().out
    assert "| GRU 16->16, 3x32 |" in out and "| fastrnn | 100 ms | 4.0 MB | 200 MB |" in out
    pytest.importorskip("matplotlib")
    assert main(["plot", str(path), "-o", str(tmp_path / "plots")]) == 0
    names = sorted(file.name for file in (tmp_path / "plots").iterdir())
    assert names == ["roofline.png", "roofline.svg", "steps.png", "steps.svg"]


def test_no_picture_without_matplotlib(tmp_path, capsys, monkeypatch):
    (tmp_path / "r.json").write_text(json.dumps(one_result()))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "bench.plot", raising=False)
    assert main(["plot", str(tmp_path / "r.json"), "-o", str(tmp_path)]) == 2
    assert "python -m bench: plot: expected matplotlib, got none" in capsys.readouterr().err


def test_files_that_are_no_results(tmp_path, capsys):
    (tmp_path / "r.json").write_text("{}")
    (tmp_path / "text").write_text("text")
    for name, words in (
        ("r.json", f"a result of version {RESULT_VERSION}, got None"),
        ("text", "no JSON"),
        ("no", "Errno 2"),
    ):
        assert main(["show", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
    for command in ([], ["builds", ".", "."]):
        assert main([*command, "--only", "nothing of this name"]) == 2
        assert "expected a text that is in the name of a case" in capsys.readouterr().err


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
    assert main(["compare", *paths]) == 1
    assert "slower: a: 1.20 times the time\n" in capsys.readouterr().out
    assert main(["compare", paths[0], paths[0]]) == 0
    assert main(["compare", *paths, "--threshold", "0.6"]) == 0


@pytest.mark.parametrize("change", ({"processor": "other"}, {"engines": {"torch": "3"}}, {}))
def test_compare_says_what_else_differs(tmp_path, capsys, change):
    for name, result in (("before", one_result(a=(10,))), ("after", {**one_result(a=(10,)), **change})):
        (tmp_path / name).write_text(json.dumps(result))
    assert main(["compare", str(tmp_path / "before"), str(tmp_path / "after")]) == 0
    lines = capsys.readouterr().out.splitlines()
    after = f"after: {change.get('processor', 'any')}; {'torch 3' if 'engines' in change else ''}"
    assert lines[:-1] == (["before: any; ", after] if change else [])


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
    """Each build that runs here; its functions give what can be worked out by hand."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    memory = np.ones(2**14 + 64, np.float32)
    address = memory.ctypes.data + -memory.ctypes.data % 64
    here = [isa for isa, (*_, flags) in BUILDS.items() if not flags or isa in fastrnn.engine.backends.ISAS]
    assert "baseline" in here and set(fastrnn.engine.backends.ISAS) <= set(BUILDS)
    for isa in here:
        width, accumulators, flags = BUILDS[isa]
        library = bench.probe._compile([f"-DWIDTH={width}", f"-DACCUMULATORS={accumulators}", *flags])
        for function in (library.multiply_adds_f32, library.multiply_adds_f64):
            assert function(0) == 0.5 * sum(range(accumulators))
            assert function(1) == sum(0.25 * (1 + i) + 0.25 for i in range(accumulators))
        for function in (library.read_plain, library.read_ahead):
            assert function(address, 2**14, 3) == 3 * 2**14 / width


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
    assert {case.against for case in GRID} == {PEERS, TORCH, ONNX, RTNEURAL}
    assert {engine.name for engine in PEER_ENGINES} == {"torch", "onnxruntime", "openvino"}


# ---------------------------------------------------------------- bits


def test_bits_that_differ_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bits, "SIZES", ((3, 5),))
    monkeypatch.setattr(bits, "record", lambda: {"here": {n: bits._digest(a) for n, a in bits.cases()}})
    path = tmp_path / "a.json"
    assert main(["bits", "-o", str(path)]) == 0
    assert main(["bits", "--against", str(path)]) == 0
    before = json.loads(path.read_text())["here"]
    names = [name for name, _ in bits.cases()]
    assert (
        len(names) == len(set(names)) == len(before) > 300
        and f"0 of {len(before)} differ" in capsys.readouterr().out
    )
    changed = next(name for name in before if name.startswith("LSTM") and "stream" in name)
    path.write_text(json.dumps({"here": {**before, changed: "0"}, "elsewhere": before}))
    assert main(["bits", "--against", str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == [f"here: {changed}", f"1 of {len(before)} differ"]
    path.write_text(json.dumps({"elsewhere": before}))
    assert main(["bits", "--against", str(path)]) == 2
