"""Files of programs from strangers: one clear error, before anything runs or much memory is taken."""

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from graphs import convolved, counter, make_program, small, tagger
from hostile_programs import at, file_of, mutated_bytes, mutated_json, mutated_nodes, parts_of

import fastrnn
from fastrnn.engine import backends
from fastrnn.graph import Size, Value, encode
from fastrnn.program.program import known_operators

FLOAT = "float32"
MAKERS = {"tagger": tagger, "counter": lambda rng: counter()}
if backends.ISAS:  # blas has no narrow products
    MAKERS |= {
        "bfloat16": lambda rng: convolved(rng, precision="bfloat16"),
        "int8": lambda rng: tagger(rng, precision="int8"),
        "int8, convolved": lambda rng: convolved(rng, precision="int8"),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "program.safetensors"


@pytest.fixture
def tagged(rng, path):
    """A program, and the file that it was saved to."""
    program = tagger(rng)
    program.save(path)
    return program, path


def refuse(content, words=""):
    with pytest.raises((fastrnn.FormatError, fastrnn.WeightError)) as caught:
        fastrnn.load(content)
    assert words in str(caught.value) and str(caught.value).startswith("bytes: ")
    assert "\n" not in str(caught.value)


NODE = ("nodes", 0)


@pytest.mark.parametrize(
    "place, value, words",
    (
        (("version",), 2, "version 1, got 2"),
        (("kind",), "other", "the description of a saved model"),
        (("inputs", 0, 1), "object", "the type and shape of an input"),
        (("inputs", 0, 2), [-1], "the type and shape of an input"),
        (("inputs", 0, 2), [1] * 33, "the type and shape of an input"),
        (("inputs", 0, 2), [True], "the type and shape of an input"),
        (("inputs", 0, 0), "lengths", "one value of each name"),
        (("inputs", 0, 0), "a\nb", "a name"),
        (("inputs", 0, 0), "x" * 2000, "a name"),
        (("nodes",), {}, "a list of nodes"),
        ((*NODE, 0), "__import__", "operators that fastrnn has, got '__import__'"),
        ((*NODE, 0), "os.system", "operators that fastrnn has"),
        ((*NODE, 0), ["add"], "operators that fastrnn has"),
        ((*NODE, 0), "loop", "operators that fastrnn has"),
        ((*NODE, 1), [], "AttributeError"),
        ((*NODE, 1, "indices"), {"value": "p"}, "names of values that are there, got 'p'"),
        ((*NODE, 1, "indices"), {"value": 3}, "an argument of an operator"),
        ((*NODE, 1, "indices"), {"call": "x"}, "an argument of an operator"),
        ((*NODE, 1, "indices"), {"value": "tokens", "x": 1}, "an argument of an operator"),
        ((*NODE, 1, "indices"), {"complex": [[], 1]}, "a part of a complex number"),
        ((*NODE, 1, "indices"), {"complex": ["x", "1"]}, "a part of a complex number"),
        ((*NODE, 1, "indices"), {"float": "1" * 5000}, "an argument of an operator"),
        ((*NODE, 1, "indices"), 10**30, "an argument of an operator"),
        ((*NODE, 1, "indices"), {"size": ["dim", "tokens", 10**30]}, "a size"),
        ((*NODE, 1, "indices"), {"size": ["dim", "gone", 0]}, "names of values that are there"),
        ((*NODE, 1, "indices"), {"size": ["system", 1, 2]}, "a size"),
        ((*NODE, 1, "indices"), {"size": [["dim"], 1, 2]}, "a size"),
        ((*NODE, 2), [], "names of what embedding gives"),
        ((*NODE, 2), ["tokens"], "one value of each name"),
        ((*NODE, 2), [["e"]], "a name"),
        ((*NODE, 3), 7, "a line of a module"),
        (("outputs", 0), "gone", "names of values that are there"),
        (("outputs",), ["p"], "1 arrays"),
        (("states",), [["gone", "p", None]], "a state that is an input"),
        (("states",), [["tokens", "p", "fc.bias"]], "a first state of tokens that fits"),
        (("states",), [["tokens", "p", None]] * 2, "one state for each"),
        (("arguments",), {"array": 0}, "2 arrays in its arguments"),
        (("arguments",), {"tuple": [{"tuple": [{"array": 1}, {"array": 0}]}, {"dict": {}}]}, "2 arrays"),
        (("arguments", "tuple", 1), {"tuple": []}, "KeyError"),
        (("parameters",), ["tokens"], "a name for each argument"),
        (("results",), {"eval": "1"}, "a structure"),
        (("results",), {"named": [[1, 2], [{"array": 0}, {"array": 1}]]}, "a structure"),
        (("tied",), {"a": "gone"}, "KeyError"),
        (("tied",), {"fc.bias": "fc.weight"}, "one constant of each name"),
        (("complex",), ["constants.fc.bias"], "complex numbers"),
        (("complex",), ["gone"], "KeyError"),
        (("golden",), [], "tensors of a program alone"),
        (("golden", 0), [1.0], "1 tolerances of 2 outputs"),
        (("golden", 0, 0), "1", "a tolerance is '1'"),
        (("example",), [1.0, 1.0], "KeyError"),
    ),
)
def test_wrong_descriptions_are_refused(tagged, place, value, words):
    header, description, data = parts_of(tagged[1].read_bytes())
    header.pop("__metadata__")
    at(description, place[:-1])[place[-1]] = value
    refuse(file_of(header, description, data), words)


def test_wrong_loops_are_refused(path):
    counter().save(path)
    header, description, data = parts_of(path.read_bytes())
    header.pop("__metadata__")
    for place, value, words in (
        (("count",), "x", "a number of steps"),
        (("count",), {"value": "x"}, "a number of steps"),
        (("carried", 0), ["x", "state", "twice"], "one value of each name"),
        (("carried", 0), ["s", "gone", "twice"], "names of values that are there"),
        (("carried", 0), ["s", "state", "gone"], "names of values that are there"),
        (("collected",), [], "a name for each result of a loop"),
        (("last", 0), "gone", "names of values that are there"),
        (("nodes", 0, 0), "gone", "operators that fastrnn has"),
    ):
        changed = json.loads(json.dumps(description))
        at(changed["nodes"][0][4], place[:-1])[place[-1]] = value
        refuse(file_of(header, changed, data), words)
    changed = json.loads(json.dumps(description))
    changed["nodes"][1][1]["self"] = {"value": "twice"}  # of the loop's inside
    refuse(file_of(header, changed, data), "names of values that are there, got 'twice'")


def test_deep_nesting_is_refused(tagged):
    header, description, data = parts_of(tagged[1].read_bytes())
    header.pop("__metadata__")
    for depth in (70, 400, 900, 100_000):
        for opened, closed in (("[", "]"), ('{"size":["+",1,', "]}"), ('{"tuple":[', "]}")):
            text = json.dumps(description).replace(
                '{"value": "tokens"}', opened * depth + "1" + closed * depth
            )
            refuse(file_of(header, text, data))
            text = json.dumps({**description, "results": "HERE"}).replace(
                '"HERE"', opened * depth + closed * depth
            )
            refuse(file_of(header, text, data))


def test_other_constants_are_refused(tagged):
    header, description, data = parts_of(tagged[1].read_bytes())
    header.pop("__metadata__")
    half = json.loads(json.dumps(header))
    half["constants.fc.weight"] |= {"dtype": "F16", "shape": [30]}
    refuse(file_of(half, description, data), "constants of a type that programs have, got float16")
    half["constants.fc.weight"]["dtype"] = "F8_NEW"
    refuse(file_of(half, description, data))


def test_hostile_programs_take_little_memory(tagged):
    """A norm that does not fit is not folded into a product: the two would be as large as their product."""
    size = 40_000
    constants = {
        "w": np.ones((1, size), FLOAT),
        "mean": np.ones((size, 1), FLOAT),
        "var": np.ones((size, 1), FLOAT),
    }
    nodes = [
        ("linear", {"input": Value("x"), "weight": Value("w")}, ("y",)),
        ("batch_norm", {"input": Value("y"), "running_mean": Value("mean"), "running_var": Value("var"),
                        "eps": 1e-5}, ("z",)),
    ]  # fmt: skip
    tracemalloc.start()
    try:
        make_program({"x": (FLOAT, ("B", size))}, nodes, ("z",), constants)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
        header, description, data = parts_of(tagged[1].read_bytes())
        header.pop("__metadata__")
        description["inputs"][0][2] = [2**47, 2**47]
        description["nodes"][1][1]["size"] = [2**47, 2**47]
        tracemalloc.reset_peak()
        loaded = fastrnn.load(file_of(header, description, data))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match="tokens of shape"):
        loaded(np.zeros((2, 2), int), np.array([1, 1]))


@pytest.mark.parametrize("mutated", (mutated_json, mutated_bytes))
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_mutated_files_give_no_other_error(rng, path, make, mutated):
    make(rng).save(path)
    content = path.read_bytes()
    loaded = 0
    for _ in range(1000):
        changed = mutated(rng, content)
        try:
            fastrnn.load(changed)
            loaded += 1
        except (fastrnn.FormatError, fastrnn.WeightError):
            pass
    assert loaded < 900


def test_graphs_that_do_not_fit_are_refused_before_they_run(rng, tmp_path):
    """In a process of its own, which would die of an access to memory that is not there."""
    script = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from hostile_programs import mutated_graph
import fastrnn
from fastrnn.loading.verify import verify
from fastrnn.program.program import known_operators
content, random = open(sys.argv[2], "rb").read(), np.random.default_rng(int(sys.argv[3]))
for _ in range(300):
    try:
        verify(mutated_graph(random, content))
    except (fastrnn.FormatError, MemoryError):
        pass
print("done")
"""
    for index, program in enumerate(make(rng) for make in MAKERS.values()):
        path = tmp_path / f"{index}.safetensors"
        program.save(path)
        seed = str(rng.integers(2**31))
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(path), seed]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.stdout.strip() == "done", (seed, result.stderr)


@pytest.mark.parametrize(
    "node, words",
    (
        (("add", {"self": Value("x"), "other": Size("dim", "x", 7)}, ("y",), "m.py:3"), "IndexError"),
        (("linear", {"input": "x", "weight": Value("x")}, ("y",), "m.py:3"), "m.py:3"),
        (("add", {"self": (1, 2), "other": Value("x")}, ("y",), "m.py:3"), "m.py:3"),
        (("add", {"self": Value("x"), "other": 1}, ("z", "y"), "m.py:3"), "a node that gives y, got none"),
        (("zeros", {"size": (Size("largest", "y"),)}, ("y",), "m.py:3"), "names of values that are there"),
        (("long", {"self": Value("x")}, ("y",)), "operators that fastrnn has, got 'long'"),
        (("mm", {"self": Value("x")}, ("y",)), "mm: "),
        (("movedim", {"self": Value("x"), "source": (0, 0), "destination": (0, 1)}, ("y",)), "movedim: "),
        (("select", {"self": Value("x"), "dim": 0, "index": Size("/", 1, 1)}, ("y",)), "select: "),
    ),
)  # fmt: skip
def test_nodes_that_do_not_fit_are_one_clear_error(path, node, words):
    """In a call, and by the definitions."""
    small().save(path)
    header, description, data = parts_of(path.read_bytes())
    header.pop("__metadata__")
    operator, arguments, outputs, *where = node
    name = description["inputs"][0][0]
    encoded = json.loads(json.dumps({key: encode(value) for key, value in arguments.items()}))
    encoded = json.loads(json.dumps(encoded).replace('"x"', json.dumps(name)))
    description["nodes"].append([operator, encoded, list(outputs), *(where or [""])])
    description["outputs"][0] = "y"
    content = file_of(header, description, data)
    if "fastrnn has" in words or "are there" in words:
        refuse(content, words)
        return
    program = fastrnn.load(content)
    x = np.ones([4 if isinstance(n, str) else n for n in program.inputs[0].shape], FLOAT)
    for call in (lambda: program(x), program.verify):
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            call()
        assert ": expected " in str(caught.value)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_mutated_nodes_run_or_are_one_clear_error(rng, path, make):
    """Whole numbers are small here, so that no graph asks for much work."""
    make(rng).save(path)
    content, operators, ran = path.read_bytes(), sorted(known_operators()), 0
    for _ in range(300):
        try:
            program = fastrnn.load(mutated_nodes(rng, content, operators))
        except fastrnn.FormatError:
            continue
        for call in (
            lambda p=program: p.run([*p.golden_inputs[0], *p._hidden]),
            program.verify,
            program.stream,
        ):
            try:
                call()
                ran += 1
            except ValueError as error:
                assert ": expected " in str(error)
            except MemoryError:
                pass
    assert ran
