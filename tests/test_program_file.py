"""Files of programs: what they keep, what the commands do with them, and hostile ones."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from graphs import counter, make_program, small, tagger
from hostile_programs import file_of, parts_of

import fastrnn
from fastrnn.graph import Loop, Node, StateLink, Value
from fastrnn.loading.verify import verify

FLOAT = "float32"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "program.safetensors"


@pytest.fixture
def tagged(rng, path):
    """A program, the file that it was saved to, and arguments for it."""
    program = tagger(rng)
    program.save(path)
    return program, path, (rng.integers(0, 10, (3, 6)), np.array([6, 2, 4]))


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
    parts = zip(*((x.values() if isinstance(x, dict) else x) for x in (one, other)), strict=True)
    for a, b in parts if not isinstance(one, np.ndarray) else [(one, other)]:
        np.testing.assert_array_equal(a, b) if isinstance(a, np.ndarray) else same(a, b)


# ---------------------------------------------------------------- what a file keeps


def test_a_saved_program_has_the_same_bits(tagged):
    program, path, args = tagged
    loaded = fastrnn.load(path)
    assert isinstance(loaded, fastrnn.Program)
    same(loaded(*args), program(*args))
    assert loaded.spec.graph.nodes == program.spec.graph.nodes
    assert loaded.inputs == program.inputs and loaded.spec.results == program.spec.results
    assert len(loaded.golden_inputs) == 2 and loaded.example is None
    loaded.save(path)
    same(fastrnn.load(path.read_bytes())(*args), program(*args))


@pytest.mark.parametrize("make", (counter, small))
def test_loops_states_and_small_programs_are_saved(rng, path, make):
    program = make()
    program.save(path)
    loaded = fastrnn.load(path)
    assert loaded.graph.nodes == program.graph.nodes and loaded.graph.states == program.graph.states
    x = [rng.standard_normal([4 if isinstance(n, str) else n for n in form.shape]).astype(FLOAT)
         for form in program.inputs]  # fmt: skip
    wanted, got = program(*x), loaded(*x)
    same(got if isinstance(got, tuple) else (got,), wanted if isinstance(wanted, tuple) else (wanted,))


def test_load_takes_the_options_that_programs_have(tagged):
    _, path, args = tagged
    loaded = fastrnn.load(path, precision="float64", threads=1, backend="blas")
    assert (loaded.precision, loaded.threads, loaded.backend) == ("float64", 1, "blas")
    assert loaded(*args)["p"].dtype == np.float64 and loaded.verify()["largest_error"] < 1e-13
    for name, value in (("batch_first", True), ("nonlinearity", "relu"), ("key", "")):
        with pytest.raises(ValueError, match=f"no options that the saved program holds, got {name}="):
            fastrnn.load(path, **{name: value})
    for options in ({"precision": "int4"}, {"threads": 0}, {"backend": "cuda"}):
        with pytest.raises(ValueError, match="expected"):
            fastrnn.load(path, **options)


def test_tied_constants_are_stored_once(rng, path):
    table = rng.standard_normal((50, 40)).astype(FLOAT)
    nodes = [
        ("embedding", {"weight": Value("in.weight"), "indices": Value("x")}, ("e",)),
        ("linear", {"input": Value("e"), "weight": Value("out.weight")}, ("y",)),
    ]
    constants = {"in.weight": table, "out.weight": table.copy()}
    program = make_program({"x": ("int64", ("B",))}, nodes, ("y",), constants)
    program.save(path)
    assert path.stat().st_size < 1.6 * table.nbytes
    loaded = fastrnn.load(path)
    assert loaded.graph.constants["in.weight"] is loaded.graph.constants["out.weight"]
    same(loaded([1, 2]), program([1, 2]))


def test_constants_of_every_type_and_odd_names_are_kept(path):
    """Names and parts that loading a checkpoint would clean, fold or leave out stay as they are."""
    constants = {
        "w.weight_g": np.ones((3, 1), FLOAT),
        "w.weight_v": np.ones((3, 3), FLOAT),
        "module.n_averaged": np.array(3),
        "_orig_mod.empty.weight": np.zeros((0, 3), FLOAT),
        "complex": np.array([1 + 2j, 3j, 0], "complex64"),
        "scalar": np.array(2.5),
        "mask": np.array([True, False, True]),
        "bytes": np.array([1, 2, 3], np.uint8),
        "short": np.array([1, 2, 3], np.int16),
    }
    nodes = [("mul", {"self": Value("x"), "other": Value("mask")}, ("y",))]
    nodes += [("mul", {"self": Value("x"), "other": Value(n)}, (f"y{n}",)) for n in ("complex", "scalar")]
    program = make_program({"x": (FLOAT, ("B", 3))}, nodes, ("y", "ycomplex", "yscalar"), constants)
    program.save(path)
    loaded = fastrnn.load(path)
    assert loaded.graph.constants.keys() == constants.keys()
    for name, array in constants.items():
        got = loaded.graph.constants[name]
        assert got.dtype == array.dtype and got.shape == array.shape
        np.testing.assert_array_equal(got, array)
    x = np.ones((2, 3), FLOAT)
    same(loaded(x), program(x))
    assert loaded(x)[2].dtype == FLOAT and verify(path)["passed"]


def test_arguments_of_every_kind_are_kept(path):
    program = small()
    odd = {
        "a": float("inf"),
        "b": float("nan"),
        "c": 1 + 2j,
        "d": (1, (None, "x", True)),
        "e": -0.0,
        "f": 2**62,
    }
    nodes = (program.graph.nodes[0]._replace(arguments={**program.graph.nodes[0].arguments, **odd}),)
    from fastrnn.saving.graph_file import describe_spec, read_spec

    spec = program.spec._replace(graph=program.graph._replace(nodes=nodes, outputs=("v1",)))
    spec = spec._replace(results={"tuple": [{"array": 0}, {"constant": float("-inf")}, {"constant": 1j}]})
    described = json.loads(json.dumps(describe_spec(spec), allow_nan=False))
    read = read_spec(described, spec.graph.constants, {"softmax"})
    assert str(read) == str(spec)


def test_a_loops_last_step_gives_what_it_was_handed():
    """A carried value among the last ones is that of the last step, before the next takes its place."""
    step = (Node("add", {"self": Value("h"), "other": Value("x")}, ("next",)),)
    loop = Loop(step, 3, (("h", "x", "next"),), ("h",), ("h", "next"))
    nodes = [Node("loop", {}, ("all", "before", "after"), "", loop)]
    program = make_program({"x": (FLOAT, (2,))}, nodes, ("all", "before", "after"))
    assert [array.tolist() for array in program(np.ones(2, FLOAT))] == [
        [[1, 1], [2, 2], [3, 3]],
        [3, 3],
        [4, 4],
    ]
    assert program.verify()["passed"]


def test_hidden_states_are_kept(path):
    nodes = [("add", {"self": Value("total"), "other": Value("x")}, ("next",))]
    inputs = {"x": (FLOAT, (3,)), "total": (FLOAT, (3,))}
    constants = {"total.initial": np.array([1, 2, 3], FLOAT)}
    links = (StateLink("total", "next", "total.initial"),)
    program = make_program(inputs, nodes, ("next",), constants, links)
    program.save(path)
    assert fastrnn.load(path)(np.ones(3, FLOAT)).tolist() == [2, 3, 4]
    assert verify(path)["passed"]


def totals(first, shape=("B", 3)):
    """x and a running total that may be left out, or has fixed sizes and is hidden, to the next total."""
    nodes = [("add", {"self": Value("total"), "other": Value("x")}, ("next",))]
    inputs = {"x": (FLOAT, ("B", 3)), "total": (FLOAT, shape)}
    links = (StateLink("total", "next", "first"),)
    return make_program(inputs, nodes, ("next",), {"first": np.array(first, FLOAT)}, links)


def test_states_that_may_be_left_out_are_kept(path):
    totals([[1, 2, 3]]).save(path)
    loaded, x = fastrnn.load(path), np.ones((2, 3), FLOAT)
    for call in (lambda: loaded(x), lambda: loaded(x, None), lambda: loaded(x=x)):
        assert call().tolist() == [[2, 3, 4], [2, 3, 4]]
    assert loaded(x, total=2 * x).tolist() == (3 * x).tolist() and verify(path)["passed"]
    wide = fastrnn.load(path, precision="float64")
    assert wide(x).dtype == np.float64 and wide(x).tolist() == loaded(x).tolist()
    with pytest.raises(TypeError, match=r"^Program: expected x and total, got 0 arguments and total"):
        loaded(total=x)


def test_a_state_that_may_be_left_out_beside_one_that_may_not_is_declared():
    nodes = [("add", {"self": Value(n), "other": Value("x")}, (f"{n}.next",)) for n in ("a", "b")]
    inputs = {name: (FLOAT, ("B", 3)) for name in ("x", "a", "b")}
    links = (StateLink("a", "a.next", "first"), StateLink("b", "b.next"))
    outputs, constants = ("a.next", "b.next"), {"first": np.array([[1, 2, 3]], FLOAT)}
    results = {"dict": {"y": {"array": 0}, "b": {"array": 1}}}
    program = make_program(inputs, nodes, outputs, constants, links, results=results)
    x = np.ones((2, 3), FLOAT)
    assert program(x, None, x)["y"].tolist() == program(x, b=x)["y"].tolist() == [[2, 3, 4]] * 2
    stream = program.stream()
    stream.step(x)
    assert stream.state["a"].tolist() == [[2, 3, 4]] * 2 and stream.state["b"].tolist() == x.tolist()


@pytest.mark.parametrize("first", ([1, 2, 3], [[1, 2]], np.ones((2, 3))))
def test_a_first_state_of_another_shape_is_refused(path, first):
    with pytest.raises(ValueError, match="a first state of total that fits"):
        totals(first).save(path)


def test_sizes_of_a_state_that_nothing_says_are_asked_for():
    program = totals([[1, 2, 3]], ("C", 3))
    with pytest.raises(ValueError, match=r"^Program: expected an array that says what C is, got none"):
        program(np.ones((2, 3), FLOAT))
    with pytest.raises(ValueError, match=r"^stream: expected an array that says what C is, got none"):
        program.stream()


def test_a_program_that_no_file_can_hold_is_refused(path):
    unknown = make_program(
        {"x": (FLOAT, (3,))}, [("mul", {"self": Value("x"), "other": 1}, ("a\nb",))], ("a\nb",)
    )
    with pytest.raises(ValueError, match="program: expected a name"):
        unknown.save(path)
    assert not path.exists()


def test_loading_needs_no_torch(tagged):
    _, path, _ = tagged
    script = f"""
import sys
sys.modules["torch"] = None
import fastrnn
program = fastrnn.load({str(path)!r})
print(program.verify()["passed"], "fastrnn.importers.torch_capture" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_a_fresh_import_brings_no_part_of_programs():
    script = """
import sys, fastrnn
print([m for m in sys.modules if m in ("fastrnn.program.program", "fastrnn.reference.operators", "hashlib")])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---------------------------------------------------------------- golden pairs and examples


def test_a_file_is_verified_by_what_it_holds(tagged):
    _, path, _ = tagged
    result = verify(path)
    assert result["passed"] and result["self_test_passed"] and result["example"] is None
    assert result["values"] > 100 and 0 < result["largest_error"] < result["tolerance"]
    header, description, data = parts_of(path.read_bytes())
    header.pop("__metadata__")
    begin, _ = header["golden.1.output.0"]["data_offsets"]
    changed = bytearray(data)
    changed[begin : begin + 8] = np.float64(7).tobytes()
    result = verify(file_of(header, description, bytes(changed)))
    assert not result["passed"] and result["largest_error"] > 6 and "result.p is " in result["hint"]


def test_an_example_is_kept_and_compared(tagged):
    program, path, args = tagged
    results = program(*args)
    program.save(path, (args, results))
    loaded = fastrnn.load(path)
    same(loaded.example.inputs, tuple(args))
    result = verify(path)
    assert result["passed"] and result["example"]["passed"] and result["example"]["largest_error"] == 0
    loaded.save(path)  # once more, with the example that it has
    assert verify(path)["example"]["passed"]
    before = path.read_bytes()
    wrong = {**results, "p": results["p"] + 1}
    with pytest.raises(
        ValueError, match=r"save: expected the example's results within .* result.p is 1 away"
    ):
        program.save(path, {"args": args, "results": wrong})
    assert path.read_bytes() == before
    program.save(path, (args, wrong), tolerance=1.5)
    assert verify(path)["example"]["tolerance"] == 1.5


def test_an_example_of_another_precision_is_dropped_by_name(tagged):
    _, path, args = tagged
    wide = fastrnn.load(path, precision="float64")
    wide.save(path, (args, wide(*args)), tolerance=1e-12)
    assert verify(path)["example"]["passed"]
    narrow = fastrnn.load(path, precision="float32")
    with pytest.warns(UserWarning, match="in float32, within 1e-12, .* does not hold the example from torch"):
        narrow.save(path)
    assert verify(path)["passed"] and verify(path)["example"] is None


@pytest.mark.parametrize("example", (3, (1,), {"args": ()}, {"args": (), "results": 1, "x": 2}))
def test_other_examples_are_refused(rng, path, example):
    with pytest.raises(TypeError, match=r"example to be \(args, results\)"):
        tagger(rng).save(path, example)


def test_nothing_is_written_if_engine_and_definitions_disagree(rng, path, monkeypatch):
    program = tagger(rng)
    run = program.run
    monkeypatch.setattr(program, "run", lambda arrays: [array + 1 for array in run(arrays)])
    with pytest.raises(RuntimeError, match="save: expected what the definitions give within"):
        program.save(path)
    assert not path.exists() and os.listdir(path.parent) == []


# ---------------------------------------------------------------- the command line


@pytest.fixture
def files(tagged, tmp_path):
    program, _path, (tokens, lengths) = tagged
    np.savez(tmp_path / "in.npz", tokens=tokens, lengths=lengths)
    np.savez(tmp_path / "out.npz", **program((tokens), lengths))
    return tmp_path


def test_info_shows_a_program(run, files, tagged):
    status, out, err = run("info", tagged[1])
    assert status == 0 and err == ""
    for words in (
        "safetensors: a program of 6 operators, 278 numbers in 7 constants, float32",
        "tokens   (B, T)  int64",
        "zeros      2",
        "Outputs: p, h",
    ):
        assert words in out
    status, out, _ = run("info", tagged[1], "--json")
    found = json.loads(out)
    assert found["operators"]["zeros"] == 2 and found["outputs"] == ["p", "h"]
    assert found["inputs"][1] == {"name": "lengths", "dtype": "int64", "shape": ["B"]}


def test_run_takes_inputs_by_name_and_gives_results_by_name(run, files, tagged):
    program, path, args = tagged
    status, out, _ = run("run", path, files / "in.npz", "-o", files / "result.npz")
    assert status == 0 and "p (3, 6, 3), h (1, 3, 5)" in out
    with np.load(files / "result.npz") as result:
        same(dict(result), program(*args))


def test_run_takes_one_array_for_one_input(run, tmp_path):
    program = small()
    program.save(tmp_path / "small.safetensors")
    x = np.ones((2, 8), FLOAT)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", anything=x)
    for name, output in (("x.npy", "y.npy"), ("x.npz", "y.npz")):
        assert run("run", tmp_path / "small.safetensors", tmp_path / name, "-o", tmp_path / output)[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), program(x))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], program(x))


@pytest.mark.parametrize(
    "arguments, words",
    (
        (("run", "P", "in.npz", "-o", "o.npy"), "expected .npz for 2 results, got .npy. The results are"),
        (("run", "P", "in.npz", "-o", "o.parquet"), "a name that ends in .npy or .npz"),
        (("run", "P", "out.npz", "-o", "o.npz"), 'arrays "tokens" and "lengths", got "p" and "h"'),
        (("run", "P", "in.npz", "in.npz", "-o", "o"), "one input and one output that are files"),
        (("run", "P", "-", "-o", "o.npz"), "one input and one output that are files"),
        (("run", "P", "in.npz", "-o", "P"), "another file than the input"),
        (("run", "P", "in.npz", "-o", "o.npz", "--rows", "1:"), "--rows: expected a model of layers"),
        (("run", "P", "in.npz", "-o", "o.npz", "--state", "s.npz"), "--final-state: expected a model of"),
        (("run", "P", "in.npz", "-o", "o.npz", "--batch-first"), "--batch-first: expected a model of layers"),
        (("bench", "P", "--steps", "3"), "--steps: expected a model of layers"),
        (("bench", "P", "--block", "3", "--rate", "9"), "--block: expected a model of layers"),
        (("convert", "P", "o", "--last"), "--last: expected a model of layers"),
        (("convert", "P", "o", "--layers", "x"), "--layers: expected a model of layers"),
        (("convert", "P", "o", "--tolerance", "1"), "--input and --expect as well"),
        (("verify", "P", "--input", "in.npz"), "both --input and --expect"),
        (("verify", "P", "--input", "in.npz", "--expect", "in.npz"), 'arrays "p" and "h"'),
        (("info", "P", "--key", "x"), "--key: expected a model of layers"),
    ),
)  # fmt: skip
def test_what_has_no_meaning_for_a_program_is_one_clear_error(
    run, files, tagged, monkeypatch, arguments, words
):
    monkeypatch.chdir(files)
    before = sorted(os.listdir(files))
    status, out, err = run(*(tagged[1] if word == "P" else word for word in arguments))
    assert status == 2 and out == "" and words in err and err.count("\n") == 1
    assert sorted(os.listdir(files)) == before


def test_verify_and_convert(run, files, tagged):
    path, example = tagged[1], ("--input", files / "in.npz", "--expect", files / "out.npz")
    assert run("verify", path)[1].startswith("passed: self-test against the NumPy reference: ")
    assert "never compared" not in run("verify", path)[1]
    status, out, _ = run("verify", path, *example, "--keep")
    assert status == 0 and "now holds the example" in out
    assert "compared with torch" in run("verify", path)[1]
    wide = files / "wide.safetensors"
    assert run("convert", path, wide, "--precision", "float64")[0] == 0
    assert fastrnn.load(wide).precision == "float64" and verify(wide)["example"]["passed"]
    np.savez(files / "out.npz", p=np.zeros((3, 6, 3)), h=np.zeros((1, 3, 5)))
    status, out, _ = run("verify", path, *example, "--json")
    assert status == 1 and "result.p is" in json.loads(out)["hint"]


def test_bench_times_calls(run, files, tagged):
    status, out, _ = run("bench", tagged[1], "--rounds", "2", "--json")
    result = json.loads(out)
    assert status == 0 and [work["inputs"]["tokens"] for work in result["works"]] == [[3, 5], [5, 8]]
    assert all(work["microseconds"] > 0 for work in result["works"])
    assert "tokens (3, 5)" in run("bench", tagged[1], "--rounds", "2")[1]


@pytest.mark.parametrize("classes", (1, 4))
def test_one_hot_checks_its_classes_and_has_a_self_test(path, classes):
    inputs, arguments = {"x": ("int64", ("B",))}, {"self": Value("x"), "num_classes": classes}
    program = make_program(inputs, [("one_hot", arguments, ("y",), "m.py:3")], ("y",))
    x = np.arange(classes)[::-1].copy()
    assert program(x).dtype == np.int64 and program(x).tolist() == np.eye(classes)[::-1].tolist()
    for wrong in (-1, classes):
        with pytest.raises(ValueError, match=rf"^one_hot: expected classes .*, got {wrong}\. At m\.py:3"):
            program(np.array([0, wrong]))
    program.save(path)
    assert verify(path)["passed"]
