"""Files of programs with narrow weights: what they hold, damaged ones, the command line."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from graphs import make_program, tagger
from hostile_programs import file_of, parts_of
from safetensors import safe_open

import fastrnn
from fastrnn.engine import backends
from fastrnn.graph import Value
from fastrnn.loading.verify import verify
from fastrnn.narrow import NarrowWeight
from fastrnn.program.program import Program

if not backends.ISAS:
    pytest.skip("simd is not built here, and blas has no narrow products", allow_module_level=True)

STORAGES = ("bfloat16", "int8")
DTYPES = {"bfloat16": "BF16", "int8": "I8"}
WEIGHTS = ("embedding.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "fc.weight")


@pytest.fixture(params=STORAGES)
def storage(request):
    return request.param


@pytest.fixture
def given(rng):
    return rng.integers(0, 10, (3, 6)), np.array([6, 2, 4])


def same(a, b):
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_file_holds_narrow_weights_and_says_so(rng, tmp_path, storage, given):
    program = tagger(rng, precision=storage)
    program.save(tmp_path / "p")
    with safe_open(tmp_path / "p", "np") as file:
        found = {name: file.get_slice(f"constants.{name}").get_dtype() for name in WEIGHTS}
        scales = [name for name in file.keys() if name.endswith(".scale")]
        description = json.loads(file.metadata()["fastrnn"])
    assert set(found.values()) == {DTYPES[storage]}
    assert len(scales) == (4 if storage == "int8" else 0)
    assert description["precision"] == storage and description["narrow"] == dict.fromkeys(WEIGHTS, storage)
    loaded = fastrnn.load(tmp_path / "p")
    assert loaded.precision == storage and repr(loaded) == repr(program)
    for name in WEIGHTS:
        weight, own = loaded.graph.constants[name], program.graph.constants[name]
        assert isinstance(weight, NarrowWeight) and np.array_equal(weight.data, own.data)
    same(loaded(*given), program(*given))
    assert loaded.verify()["passed"] and verify(tmp_path / "p")["passed"]


def test_a_file_of_wide_weights_says_nothing_new(rng, tmp_path):
    tagger(rng).save(tmp_path / "p")
    description = json.loads(fastrnn.load_state_dict(tmp_path / "p").metadata["fastrnn"])
    assert not {"precision", "narrow"} & description.keys()


def test_a_file_is_read_where_there_is_no_torch(rng, tmp_path, storage, given):
    program = tagger(rng, precision=storage)
    program.save(tmp_path / "p")
    np.savez(tmp_path / "x.npz", *given)
    code = f"""
import sys
sys.modules["torch"] = None
import numpy, fastrnn
x = numpy.load(r"{tmp_path / "x.npz"}")
numpy.save(r"{tmp_path / "y.npy"}", fastrnn.load(r"{tmp_path / "p"}")(x["arr_0"], x["arr_1"])["p"])
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), program(*given)["p"])


def test_load_makes_other_precisions(rng, tmp_path, storage, given):
    wide = tagger(rng)
    wide.save(tmp_path / "wide")
    narrow = fastrnn.load(tmp_path / "wide", precision=storage)
    same(narrow(*given), Program(wide.spec, precision=storage)(*given))
    narrow.save(tmp_path / "narrow")
    same(fastrnn.load(tmp_path / "narrow", precision=storage)(*given), narrow(*given))
    back = fastrnn.load(tmp_path / "narrow", precision="float32")
    assert back.precision == "float32" and back.verify()["passed"]
    mapping = fastrnn.load(tmp_path / "wide", precision={"recurrent": storage})
    mapping.save(tmp_path / "mapping")
    assert fastrnn.load(tmp_path / "mapping").precision == {"input": "float32", "recurrent": storage}
    with pytest.raises(ValueError, match=r"load: expected weights stored as one of .*"):
        fastrnn.load(tmp_path / "narrow", backend="blas")
    with pytest.raises(ValueError, match=r"load: expected weights stored as one of .*"):
        fastrnn.load(tmp_path / "wide", precision=storage, backend="blas")


def test_an_example_that_does_not_agree_any_more_is_dropped_with_a_warning(rng, tmp_path, given):
    wide = tagger(rng)
    results = wide(*given)
    wide.save(tmp_path / "wide", (given, results), tolerance=1e-6)
    narrow = fastrnn.load(tmp_path / "wide", precision="int8")
    with pytest.warns(UserWarning, match="the example's output in int8, within 1e-06"):
        narrow.save(tmp_path / "narrow")
    assert fastrnn.load(tmp_path / "narrow").example is None
    narrow.save(tmp_path / "with", (given, results))
    assert verify(tmp_path / "with")["example"]["passed"]


def test_tied_weights_are_stored_once(rng, tmp_path, storage):
    table = rng.standard_normal((9, 5)).astype(np.float32)
    nodes = [
        ("embedding", {"weight": Value("in.weight"), "indices": Value("x")}, ("e",)),
        ("linear", {"input": Value("e"), "weight": Value("out.weight")}, ("y",)),
    ]
    constants = {"in.weight": table, "out.weight": table.copy()}
    inputs = {"x": ("int64", ("B",))}
    make_program(inputs, nodes, ("y",), constants, precision=storage).save(tmp_path / "p")
    loaded = fastrnn.load(tmp_path / "p")
    assert loaded.graph.constants["in.weight"] is loaded.graph.constants["out.weight"]
    assert loaded.precision == storage


# ---------------------------------------------------------------- damaged files


def damaged(path, change):
    """The file with a change to its header and description."""
    header, description, data = parts_of(path.read_bytes())
    description = change(header, description) or description
    return file_of(header, description, data)


def rename(header, old, new):
    header[f"constants.{new}"] = header.pop(f"constants.{old}")


DAMAGES = {
    "another precision": lambda h, d: d.update(precision="float32"),
    "no precision": lambda h, d: d.pop("precision") and None,
    "a strange precision": lambda h, d: d.update(precision={"input": []}),
    "a weight of the other storage": lambda h, d: d["narrow"].update(
        {"fc.weight": "int8" if d["precision"] == "bfloat16" else "bfloat16"}
    ),
    "a storage that there is not": lambda h, d: d["narrow"].update({"fc.weight": "int4"}),
    "a list for storages": lambda h, d: d.update(narrow=["fc.weight"]),
    "a narrow bias": lambda h, d: d["narrow"].update({"fc.bias": "int8"}),
    "no such weight": lambda h, d: d["narrow"].update({"w": "int8"}),
    "a weight that is not named": lambda h, d: d["narrow"].clear(),
    "another use of a weight": lambda h, d: d["nodes"].append(
        ["add", {"self": {"value": "logits"}, "other": {"value": "fc.weight"}}, ["z"], ""]
    ),
    "a weight as a result": lambda h, d: d.update(outputs=["p", "fc.weight"]),
    "a weight as an input's bias": lambda h, d: d["nodes"][4][1].update(bias={"value": "fc.weight"}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(rng, tmp_path, storage, damage):
    tagger(rng, precision=storage).save(tmp_path / "p")
    content = damaged(tmp_path / "p", DAMAGES[damage])
    with pytest.raises(fastrnn.FormatError, match=r"^bytes: |^the file: |expected"):
        fastrnn.load(content)


def test_scales_have_to_fit(rng, tmp_path):
    tagger(rng, precision="int8").save(tmp_path / "p")

    def shorter(header, description):
        header["constants.fc.weight.scale"]["shape"] = [3, 1]

    with pytest.raises(fastrnn.FormatError, match=r"int8 weights and scales that fit in 'fc\.weight'"):
        fastrnn.load(damaged(tmp_path / "p", shorter))


def test_weights_of_another_shape_are_found_when_a_plan_is_made(rng, tmp_path, storage, given):
    """As in files of wide weights."""
    tagger(rng, precision=storage).save(tmp_path / "p")

    def turned(header, description):
        for name in ("fc.weight", "embedding.weight"):
            entry = header[f"constants.{name}"]
            if storage == "bfloat16":
                entry["shape"] = entry["shape"][::-1]
            else:
                rows, columns = entry["shape"]
                entry["shape"] = [rows, 1, columns]

    content = damaged(tmp_path / "p", turned)
    with pytest.raises(ValueError, match="expected"):
        fastrnn.load(content)(*given)


# ---------------------------------------------------------------- the command line


def run(*arguments):
    command = [sys.executable, "-m", "fastrnn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_commands_take_narrow_programs(rng, tmp_path, storage, given):
    wide = tagger(rng)
    wide.save(tmp_path / "wide")
    status, out, _ = run("convert", tmp_path / "wide", tmp_path / "narrow", "--precision", storage)
    assert status == 0 and f"precision='{storage}'" in out and "passed: self-test" in out
    status, out, _ = run("info", tmp_path / "narrow")
    assert status == 0 and re.search(rf"constants, {storage}\n", out)
    status, out, _ = run("info", tmp_path / "narrow", "--json")
    assert json.loads(out)["precision"] == storage
    assert run("verify", tmp_path / "narrow")[0] == 0
    np.savez(tmp_path / "x.npz", tokens=given[0], lengths=given[1])
    wanted = fastrnn.load(tmp_path / "narrow")(*given)["p"]
    for file, options in (("narrow", ()), ("wide", ("--precision", storage))):
        target = tmp_path / f"{file}.npz"
        assert run("run", tmp_path / file, tmp_path / "x.npz", "-o", target, *options)[0] == 0
        (got,) = (a for n, a in np.load(target).items() if n.endswith("p"))
        assert np.array_equal(got, wanted)
    status, out, _ = run("bench", tmp_path / "narrow", "--rounds", 1)
    assert status == 0 and f"precision='{storage}'" in out


def test_info_shows_the_precision_of_each_matrix(rng, tmp_path):
    tagger(rng, precision={"recurrent": "int8"}).save(tmp_path / "p")
    assert "input float32, recurrent int8" in run("info", tmp_path / "p")[1]
