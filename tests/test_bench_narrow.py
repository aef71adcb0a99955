"""``python -m bench --precision``: the grids of narrow precisions, their limits and targets."""

import json

import numpy as np
import pytest

import bench.probe
import bench.run
from bench import narrow
from bench.__main__ import main
from bench.cases import OWN
from bench.narrow import GATE_GFLOPS, NARROW_GRIDS, NarrowCase, grid_of
from bench.probe import NARROW_BUILDS, Limits, NoCompiler
from bench.report import print_report
from fastrnn.checks import PRECISIONS, WIDE
from fastrnn.engine.backends import ISAS

LIMITS = Limits(
    "amx",
    {"float32": GATE_GFLOPS, "float64": 100.0},
    [(2**14, 100.0), (2**28, 100.0)],
    {},
    {"bfloat16": {4: 1000.0, 16: 3200.0}},
)


def test_every_narrow_precision_has_a_grid():
    assert NARROW_GRIDS == tuple(name for name in narrow.WITH_AMX if name in PRECISIONS)
    assert {name for name in PRECISIONS if name not in WIDE} == set(NARROW_GRIDS)


@pytest.mark.parametrize("has_amx", (False, True))
def test_grids_have_cases_with_targets(has_amx):
    for precision in NARROW_GRIDS:
        cases = grid_of(precision, has_amx)
        names = [case.name for case in cases]
        assert len(set(names)) == len(names) and (names or not has_amx)
        assert all(case.precision == precision and case.target > 1 for case in cases)
        assert all(precision in name for name in names)
    amx = {case.name: case.target for case in grid_of("int8", True)}
    assert amx["LSTM 256->256 int8, 100x32"] == 4.3 and amx["LSTM 128->128 int8, pool of 1024"] == 3.5
    assert amx["LSTM 512->512 proj 256 int8, 100x1"] == 3.0
    plain = {case.name: case.target for case in grid_of("bfloat16", False)}
    assert plain["LSTM 256->256 bfloat16, 100x32"] == 1.05
    assert "GRU 512->512 bfloat16, 100x32" not in plain


def test_products_of_few_rows_cost_more():
    def us(precision, rows):
        return LIMITS.microseconds(precision, 1600, rows)

    assert us("bfloat16", 16) == pytest.approx(2 * 1600 * 16 / 3200e3)
    assert us("bfloat16", 32) == 2 * us("bfloat16", 16)
    assert us("bfloat16", 4) == us("bfloat16", 1) == pytest.approx(2 * 1600 * 4 / 1000e3)
    assert us("bfloat16", 5) == us("bfloat16", 16)
    assert us("bfloat16", 17) == us("bfloat16", 16) + us("bfloat16", 1)
    assert us("unknown", 3) == pytest.approx(2 * 1600 * 3 / (1e3 * GATE_GFLOPS))


def test_limits_of_narrow_cases():
    """Reading or products, and the gates, as they are worked out by hand."""
    gates = 0.6 * 11 * 128 / 16 / 1e3
    weights = 4 * 128 * 128
    kind, wanted, microseconds = NarrowCase("LSTM", 128, 128, mode="step", precision="bfloat16").limit(LIMITS)
    assert (kind, wanted) == ("reading", None)
    assert microseconds == pytest.approx(2 * 2 * weights / 100e3 + gates)
    kind, _, microseconds = NarrowCase("LSTM", 128, 128, T=10, B=32, precision="bfloat16").limit(LIMITS)
    product = 2 * weights * 32 / 3200e3
    assert kind == "reading"
    assert microseconds == pytest.approx(10 * (2 * weights / 100e3 + 32 * gates) + 10 * product)
    kind, _, microseconds = NarrowCase("LSTM", 128, 128, T=10, B=320, precision="bfloat16").limit(LIMITS)
    assert kind == "products" and microseconds == pytest.approx(10 * (20 * product + 320 * gates))
    half = NarrowCase("LSTM", 128, 128, T=10, B=320, precision="bfloat16").limit(LIMITS, 2)[2]
    assert half == pytest.approx(microseconds / 2)
    gru = NarrowCase("GRU", 128, 128, mode="step", precision="int8").limit(LIMITS)[2]
    assert gru == pytest.approx(2 * 2 * 3 * 128 * 128 / (GATE_GFLOPS * 1e3) + gates * 3 / 5) or gru > 0


def test_split_numbers_take_several_products():
    """Of sums of bfloat16 numbers."""
    for precision, parts, products in (("bfloat16x2", 2, 3), ("bfloat16x3", 3, 6)):
        case = NarrowCase("LSTM", 128, 128, T=10, B=320, precision=precision)
        one = NarrowCase("LSTM", 128, 128, T=10, B=320, precision="bfloat16")
        assert case.weight_bytes == 2 * parts
        gates = 10 * 320 * 0.6 * 11 * 128 / 16 / 1e3
        assert case.limit(LIMITS)[2] - gates == pytest.approx(products * (one.limit(LIMITS)[2] - gates))


def test_a_target_beyond_the_limit_is_lowered():
    case = NarrowCase("LSTM", 8, 8, precision="int8", target=4.0)
    assert (case.wanted(None), case.wanted(10.0), case.wanted(2.0)) == (4.0, 4.0, 1.7)


@pytest.mark.parametrize("precision", NARROW_GRIDS)
def test_a_run_stands_beside_peers_and_float32(monkeypatch, capsys, precision):
    monkeypatch.setattr(bench.run, "probe", lambda: LIMITS)
    cases = [
        NarrowCase("LSTM", 32, 32, T=3, B=2, precision=precision),
        NarrowCase("RNN", 32, 32, T=3, precision=precision, against=OWN),
        NarrowCase("LSTM", 32, 32, B=5, mode="pool", precision=precision),
    ]
    result = json.loads(json.dumps(bench.run.run(cases, rounds=1, round_seconds=1e-4)))
    for entry in result["cases"]:
        times = entry["engines"]
        assert times[OWN]["microseconds"] > 0 and times[OWN]["difference"] > 0
        assert entry["limit"]["kind"] in ("reading", "products") and "pool" not in entry
    own = result["cases"][1]
    ours = own["engines"]["fastrnn"]["microseconds"]
    assert own["ratio"] == pytest.approx(own["engines"][OWN]["microseconds"] / ours)
    print_report(result)
    out = capsys.readouterr().out
    assert OWN in out and f"LSTM 32->32 {precision}, pool of 5" in out and "3200 bfloat16" in out


def test_a_grid_is_asked_for_by_its_precision(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(bench.run, "probe", lambda: LIMITS)
    monkeypatch.setattr(
        bench.run, "measure", lambda work, *_: asked.append(work) or {"fastrnn": {"microseconds": 1.0}}
    )
    assert main(["--precision", "int8", "--only", "50x1", "-o", str(tmp_path / "r.json")]) == 0
    assert [work.precision for work in asked] == ["int8"]
    assert "LSTM 1024->1024 int8, 50x1" in capsys.readouterr().out
    assert main(["--precision", "float16"]) == 2
    assert "--precision to be one of" in capsys.readouterr().err


def test_the_probe_measures_narrow_products(monkeypatch):
    monkeypatch.setattr(bench.probe, "SECONDS", 2e-5)
    monkeypatch.setattr(bench.probe, "PEAK_REPEATS", 2)
    for isa in set(ISAS) & NARROW_BUILDS.keys():
        try:
            found = bench.probe._products(isa)
        except NoCompiler as error:
            pytest.skip(str(error))
        assert "int8" in found and ("bfloat16" in found) <= (isa == "amx")
        assert all(rate > 0 for rates in found.values() for rate in rates.values())
    assert bench.probe._products("baseline") == {}


def test_vectors_of_products_are_summed():
    """What the probe's loop computes, worked out by hand."""
    for isa, factor in (("avx512_vnni", 4 * 2), ("avx2_vnni", 4 * 2)):
        if isa not in ISAS:
            continue
        flags, functions = NARROW_BUILDS[isa]
        try:
            library = bench.probe._compile(flags, bench.probe.NARROW_SOURCE)
        except NoCompiler as error:
            pytest.skip(str(error))
        sums = functions["int8"][1] // (2 * (64 if "512" in isa else 32))
        start = sum(3 * 7 + i for i in range(sums))
        assert library.sums_int8(1, 7) - start == 7 * factor * sums


def test_best_limits_are_taken_of_products_too():
    higher = Limits("amx", LIMITS.gflops, LIMITS.bandwidth, {}, {"bfloat16": {4: 2000.0, 16: 1.0}})
    assert LIMITS.best(higher).products == {"bfloat16": {4: 2000.0, 16: 3200.0}}
    assert np.isfinite(LIMITS.microseconds("bfloat16", 1, 1))
