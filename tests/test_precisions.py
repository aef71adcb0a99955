"""``fastrnn bench --precision all`` and the option --precision. No test looks at a time."""

import json
import xml.etree.ElementTree

import numpy as np
import pytest
from helpers import random_layer

import fastrnn
from bench.cases import Case
from fastrnn.benchmark.engines import OURS, PEERS, LeftOut
from fastrnn.benchmark.measure import measure
from fastrnn.benchmark.narrow_engines import NARROW_PEERS, peers_at
from fastrnn.benchmark.picture import Axis, marks_of, scatter, svg
from fastrnn.benchmark.precisions import (
    OUR_PRECISIONS,
    at_precision,
    bench_precisions,
    is_best,
    left_out,
    print_precisions,
)
from fastrnn.benchmark.work import Work, agreement
from fastrnn.checks import PRECISIONS
from fastrnn.narrow import STORAGES
from fastrnn.reference import sequential_reference

QUICK = {"rounds": 1, "round_seconds": 1e-4}
NARROW = [engine for engines in NARROW_PEERS.values() for engine in engines]


def installed(name, precision):
    engine = next(e for e in NARROW if (e.name, e.precision) == (name, precision))
    for package in engine.needs:
        pytest.importorskip(package)
    return engine


# ---------------------------------------------------------------- engines


@pytest.mark.parametrize("mode", ("sequence", "step", "block"))
@pytest.mark.parametrize("kind", ("LSTM", "GRU"))
@pytest.mark.parametrize("engine", NARROW, ids=lambda engine: f"{engine.name}-{engine.precision}")
def test_narrow_engines_round_and_do_no_more(rng, engine, kind, mode):
    """Three calls, whose states go on in steps and blocks, are near float64 and not the same as float32."""
    installed(engine.name, engine.precision)
    work = Case(kind, 24, 32, T=1 if mode == "step" else 5, B=2, mode=mode).work()
    try:
        with engine.active():
            job = engine.build(work)
    except LeftOut:
        pytest.skip("it has no such layer")
    exact = OURS.build(work)
    for _ in range(3):
        exact.call()
        with engine.active():
            job.call()
            got = job.output()
        wanted = exact.output()
        error = np.abs(np.reshape(got, wanted.shape) - wanted).max()
        assert 1e-5 < error < agreement(engine.precision)


def test_what_an_engine_lacks_is_told():
    for name, precision, options, words in (
        ("torch", "int8", {"proj_size": 4}, "no int8 with proj_size"),
        ("torch", "int8", {"kind": "RNN"}, "no int8 of an RNN over sequences"),
        ("onnxruntime", "int8", {"kind": "GRU"}, "no int8 of GRU"),
        ("onnxruntime", "bfloat16", {}, "no bfloat16 on a CPU"),
        ("openvino", "int8", {}, "NNCF"),
    ):
        engine = installed(name, precision)
        with pytest.raises(LeftOut, match=words):
            engine.build(Case(**{"kind": "LSTM", **options}, input_size=8, hidden_size=8, T=3).work())


def test_peers_of_a_precision():
    assert all(engine.precision == name for name in STORAGES for engine in peers_at(name))
    assert peers_at("float32") == PEERS and peers_at("a precision to come") == PEERS
    assert agreement("a precision to come") == agreement("int8")


@pytest.mark.parametrize("precision", STORAGES)
def test_narrow_cases_are_measured_beside_engines_as_narrow(precision):
    work = Case("LSTM", 16, 16, T=3, B=2, precision=precision).work()
    assert work.precision == precision
    found = measure(work, peers_at(precision), **QUICK)
    for engine in peers_at(precision):
        if engine.is_installed() and "left_out" not in found[engine.name]:
            assert found[engine.name]["difference"] > 0 < found[engine.name]["microseconds"]


# ---------------------------------------------------------------- time against error


def test_points_are_of_every_precision(rng):
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 6, 8, precision="float32"))
    result = bench_precisions(model, T=4, B=2, **QUICK)
    assert [work["name"] for work in result["works"]] == [
        "one step, 1 row",
        "4 steps, 1 row",
        "4 steps, 2 rows",
    ]
    for work in result["works"]:
        ours = {p["precision"]: p for p in work["points"] if p["engine"] == "fastrnn"}
        assert tuple(ours) == OUR_PRECISIONS == tuple(name for name in PRECISIONS if name != "float64")
        assert ours["float32"]["error"] < 1e-6 < ours["bfloat16"]["error"] < ours["int8"]["error"]
        assert all(("left_out" in p) != ("microseconds" in p and "error" in p) for p in work["points"])
    json.dumps(result)


def test_errors_are_those_from_float64(rng):
    layer = random_layer(rng, "GRU", 6, 8, precision="float32")
    model = fastrnn.Sequential(layer)
    work = bench_precisions(model, T=4, B=2, peers=[], **QUICK)["works"][-1]
    x = Work((layer.spec(),), 4, 2).x()
    wide = sequential_reference([layer.spec()], x.astype(np.float64), False)
    for point in work["points"]:
        own = at_precision(Work((layer.spec(),), 4, 2), point["precision"]).specs[0]
        y, _ = fastrnn.GRU.from_spec(own)(x)
        assert point["error"] == pytest.approx(np.abs(y - wide).max(), rel=1e-6)


def points(*triples):
    return [{"engine": e, "precision": "p", "microseconds": t, "error": r} for e, t, r in triples]


def test_the_best_are_those_that_nothing_beats():
    some = points(("a", 1.0, 1e-2), ("b", 2.0, 1e-3), ("c", 2.5, 1e-3), ("d", 3.0, 0.5), ("e", 9.0, 0.0))
    assert [is_best(point, some) for point in some] == [True, True, False, False, True]


def test_a_picture_of_characters():
    some = points(("a", 1.0, 1e-1), ("b", 100.0, 1e-1), ("c", 100.0, 1e-7), ("d", 100.0, 1e-7), ("e", 5, 0.0))
    lines = list(scatter(some))
    assert max(map(len, lines)) <= 60
    rows = [line.partition("|")[2] for line in lines if "|" in line]
    found = {mark: (rows.index(row), row.index(mark)) for row in rows for mark in row if mark != " "}
    assert found.keys() == {"1", "2", "*", "5"}  # c and d are in one place
    assert found["1"][0] == found["2"][0] < found["*"][0] < found["5"][0]
    assert found["1"][1] < found["5"][1] < found["2"][1] == found["*"][1]
    assert len(list(scatter(some[:1]))) == len(lines)
    assert len(marks_of(range(100))) == 100


def test_ticks_are_round_numbers_inside():
    for low, high in ((1, 1), (1, 2), (0.3, 7), (1e-7, 1e-1), (120, 480)):
        axis = Axis([low, high])
        assert all(0 <= axis.place(tick) <= 1 for tick in axis.ticks())
        assert len(axis.ticks()) > 1 or high / low < 5


def test_bench_of_every_precision(rng, run, tmp_path):
    model = fastrnn.Sequential(random_layer(rng, "LSTM", 3, 4, precision="float32"))
    model.save(tmp_path / "m")
    command = ["bench", tmp_path / "m", "--precision", "all", "--steps", "4", "--batch", "2", "--rounds", "1"]
    status, out, _ = run(*command, "-o", tmp_path / "p.svg", "--json")
    result = json.loads(out)
    picture = (tmp_path / "p.svg").read_text()
    assert status == 0 and xml.etree.ElementTree.fromstring(picture).tag.endswith("svg")
    assert picture == svg(result)
    circles = sum("microseconds" in point for work in result["works"] for point in work["points"])
    assert picture.count("<circle") == circles
    status, out, _ = run(*command)
    lines = out.splitlines()
    assert status == 0 and max(map(len, lines[1:])) <= 60
    assert sum(line.startswith("   engine") for line in lines) == 3


def test_what_was_left_out_is_told_once(capsys):
    gone = {"engine": "e", "precision": "int8", "left_out": "no"}
    some = points(("a", 1.0, 0.1))
    works = [{"name": "w", "points": [*some, gone]}, {"name": "v", "points": some}]
    result = {"model": "m", "processor": "p", "engines": {}, "not_installed": {}, "works": works}
    assert left_out(result) == ["e int8: no (w)"]
    assert left_out({"works": works[:1]}) == ["e int8: no"]
    print_precisions(result)
    assert capsys.readouterr().out.endswith("\ne int8: no (w)\n")


@pytest.mark.parametrize(
    "options, words",
    (
        (
            ("--precision", "all", "--block", "4", "--rate", "9"),
            "expected one precision with --block, got all.",
        ),
        (("-o", "x.svg"), "--output: expected --precision all with a picture, got x.svg."),
    ),
)
def test_pictures_are_of_every_precision(run, model, tmp_path, options, words):
    status, _, err = run("bench", tmp_path / "model.safetensors", *options)
    assert status == 2 and words in err


# ---------------------------------------------------------------- the option


def test_a_precision_of_each_matrix(run, model, tmp_path):
    output = tmp_path / "small.safetensors"
    given = ("--precision", "recurrent=int8, input=bfloat16")
    status, out, _ = run("convert", tmp_path / "model.safetensors", output, *given)
    wanted = {"input": "bfloat16", "recurrent": "int8"}
    assert status == 0 and fastrnn.load(output).layers[0].precision == wanted
    assert fastrnn.load(output).layers[1].precision == "float32"
    _, out, _ = run("info", output, "--json")
    stored = json.loads(out)["tensors"]
    assert stored["layers.0.weight_hh_l0"]["dtype"] == "int8"
    assert stored["layers.0.weight_ih_l0"]["dtype"] == "bfloat16"
    x = np.ones((4, 2, 3), np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = ("run", tmp_path / "model.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert run(*arguments, *given)[0] == 0
    assert np.array_equal(np.load(tmp_path / "y.npy"), fastrnn.load(output)(x)[0])


@pytest.mark.parametrize(
    "precision, words",
    (
        ("float16", "--precision: expected one of float32, float64, bfloat16"),
        ("all", "got all."),
        ("gate=int8", 'expected precisions of "input", "recurrent" and "projection", got \'gate\'.'),
        ("input=float16", "expected precision of input to be one of"),
        ("input=float64", "no float64 in a precision of input alone"),
        ("input=int8,input=int8", "expected input once, got it twice."),
    ),
)
def test_wrong_precisions_are_told(capsys, model, tmp_path, precision, words):
    from fastrnn.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["convert", str(tmp_path / "model.safetensors"), str(tmp_path / "o"), "--precision", precision])
    assert ended.value.code == 2 and words in capsys.readouterr().err
