"""Programs: calls, errors, verification, copies. Graphs are written by hand, so torch is not needed."""

import copy
import gc
import pickle
import signal
import threading
import tracemalloc

import numpy as np
import pytest
from graphs import counter, make_program, small, tagger
from helpers import assert_close

import fastrnn
from fastrnn.graph import Node, Size, Value
from fastrnn.program.evaluate import evaluate

FLOAT = "float32"


def defined(program, *arrays):
    """What the definitions give for inputs in order."""
    given = dict(zip((form.name for form in program.graph.inputs), arrays, strict=True))
    return evaluate(program.graph, given, program.graph.outputs)


def scaled(**options):
    """x (B, 3) to 2 x."""
    nodes = [("mul", {"self": Value("x"), "other": 2.0}, ("y",))]
    return make_program({"x": (FLOAT, ("B", 3))}, nodes, ("y",), **options)


def reference_only(operator="cumsum", arguments=None):
    """A program of an operator that has no kernel."""
    arguments = {"self": Value("x"), "dim": 0} if arguments is None else arguments
    return make_program({"x": (FLOAT, ("B", 3))}, [(operator, arguments, ("y",), "m.py:1")], ("y",))


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize("backend", ("auto", "blas"))
def test_a_program_gives_what_the_definitions_give(rng, backend):
    program = tagger(rng, backend=backend)
    tokens, lengths = rng.integers(0, 10, (3, 6)), np.array([6, 2, 4])
    result = program(tokens, lengths)
    assert list(result) == ["p", "h"]
    for got, wanted in zip(result.values(), defined(program, tokens, lengths), strict=True):
        assert_close(got, wanted, 1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    (("int32", "int64"), ("float32", "float64"), ("bool", "int32"), ("int64", "float32")),
)
def test_sums_of_0d_arrays_have_the_type_of_the_definition(one, other):
    nodes = [("add", {"self": Value("a"), "other": Value("b")}, ("y",))]
    program = make_program({"a": (one, ()), "b": (other, ())}, nodes, ("y",))
    a, b = np.array(1, one), np.array(3, other)
    (wanted,) = defined(program, a, b)
    found = program(a, b)
    assert found.dtype == wanted.dtype and found == wanted


def test_loops_and_states(rng):
    program = counter()
    x, state = rng.standard_normal((2, 4, 3)).astype(FLOAT)
    y, each, after = program(x, state)
    assert_close(y, x + 6 * state, 1e-5)
    assert_close(each[0], x + 2 * state, 1e-5)
    assert_close(after, 4 * state + 1, 1e-5)


def test_first_and_later_calls_have_the_same_bits(rng):
    """The first one plans, later ones take the way of plain arrays."""
    program = tagger(rng)
    tokens, lengths = rng.integers(0, 10, (3, 6)), np.array([6, 2, 4])
    first = program(tokens, lengths)
    for _ in range(3):
        again = program(tokens, lengths=lengths)
        for name in first:
            np.testing.assert_array_equal(first[name], again[name])
            assert not np.shares_memory(first[name], again[name])
        again = program(tokens, lengths)


def test_arrays_that_are_not_plain_are_converted():
    program = scaled()
    wanted = np.array([[2, 4, 6]], FLOAT)
    x = wanted / 2
    program(x)
    wide = np.zeros((1, 6), FLOAT)
    wide[:, ::2] = x
    swapped = x.astype(">f4")
    for given in (
        x,
        x.astype(np.float64),
        x.tolist(),
        wide[:, ::2],
        swapped,
        np.asfortranarray(x),
        [[1, 2, 3]],
    ):
        got = program(given)
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == FLOAT


def test_more_sizes_than_plans_are_kept():
    program = scaled()
    for _ in range(2):
        for size in range(40):
            np.testing.assert_array_equal(program(np.ones((size, 3), FLOAT)), np.full((size, 3), 2, FLOAT))


def test_the_shapes_of_two_inputs_are_told_apart():
    """(2, 3) and (4, 2) have the same sizes in a row as others; only equal shapes share a plan."""
    nodes = [("matmul", {"self": Value("x"), "other": Value("y")}, ("z",))]
    program = make_program({"x": (FLOAT, ("A", "B")), "y": (FLOAT, ("B", "C"))}, nodes, ("z",))
    for shapes in (((2, 3), (3, 4)), ((2, 2), (2, 3)), ((1, 2), (2, 9)), ((2, 3), (3, 4))):
        x, y = (np.ones(shape, FLOAT) for shape in shapes)
        np.testing.assert_array_equal(program(x, y), x @ y)


@pytest.mark.parametrize(
    "arguments, structure",
    (
        (lambda a, b: ((a, b),), {"tuple": [{"tuple": [{"array": 0}, {"array": 1}]}]}),
        (lambda a, b: ([a, b],), {"tuple": [{"list": [{"array": 0}, {"array": 1}]}]}),
        (lambda a, b: ({"l": a, "r": b},), {"tuple": [{"dict": {"l": {"array": 0}, "r": {"array": 1}}}]}),
    ),
)
def test_nested_arguments_and_results(arguments, structure):
    nodes = [("sub", {"self": Value("a"), "other": Value("b")}, ("y",))]
    results = {"named": [["y", "none"], [{"list": [{"array": 0}]}, {"constant": None}]]}
    inputs = {"a": (FLOAT, ("B",)), "b": (FLOAT, ("B",))}
    program = make_program(inputs, nodes, ("y",), arguments=structure, results=results)
    program = fastrnn.Program(program.spec._replace(parameters=("pair",)))
    a, b = np.array([3, 4], FLOAT), np.array([1, 1], FLOAT)
    for _ in range(2):
        (y,), nothing = program(*arguments(a, b))
        assert y.tolist() == [2, 3] and nothing is None
    with pytest.raises(TypeError, match="pair to be a "):
        program(a)


def test_precision_and_threads(rng):
    for threads in (None, 1, 2):
        program = tagger(rng, precision="float64", threads=threads)
        tokens, lengths = rng.integers(0, 10, (3, 6)), np.array([6, 2, 4])
        result = program(tokens, lengths)
        assert program.precision == "float64" and result["p"].dtype == np.float64
        for got, wanted in zip(result.values(), defined(program, tokens, lengths), strict=True):
            assert_close(got, wanted, 1e-14)
    with pytest.raises(
        ValueError, match='precision to be one of "float32", "float64", "bfloat16" and "int8"'
    ):
        tagger(rng, precision="float16")


def test_a_call_in_steady_state_allocates_nothing_but_its_results(rng):
    program = small()
    x = rng.standard_normal((64, 8)).astype(FLOAT)
    program(x)
    gc.collect()
    tracemalloc.start()
    try:
        y = program(x)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100):
            y = program(x)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500
    assert peak - before < y.nbytes + 1500


def test_threads_share_a_program(rng):
    program = tagger(rng)
    tokens, lengths = rng.integers(0, 10, (3, 6)), np.array([6, 2, 4])
    wanted = program(tokens, lengths)["p"]
    wrong = []

    def work():
        for _ in range(200):
            if not np.array_equal(program(tokens, lengths)["p"], wanted):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---------------------------------------------------------------- errors


def test_wrong_arguments_are_named(rng):
    program = tagger(rng)
    tokens, lengths = np.zeros((2, 3), int), np.array([3, 1])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"lengths of shape \(B,\) with B = 2, as in tokens"):
            program(tokens, np.array([1, 2, 3]))
        with pytest.raises(ValueError, match=r"tokens of shape \(B, T\), got \(3,\)"):
            program(np.zeros(3, int), lengths)
        with pytest.raises(TypeError, match="tokens to hold int64, got float64"):
            program(np.zeros((2, 3)), lengths)
        with pytest.raises(TypeError, match="expected tokens and lengths"):
            program(tokens)
        with pytest.raises(TypeError, match="tokens to be a"):
            program("text", lengths)
        program(tokens, lengths)


@pytest.mark.parametrize("number", (-1, 10, 2**40, -(2**63)))
def test_places_outside_a_table_are_refused(rng, number):
    program = tagger(rng)
    tokens, lengths = np.zeros((2, 3), int), np.array([3, 1])
    program(tokens, lengths)
    tokens[1, 2] = number
    for _ in range(2):
        with pytest.raises(
            ValueError, match=f"embedding: expected indices from 0 to 9, got {number}. At m.py:4"
        ):
            program(tokens, lengths)
    tokens[1, 2] = 9
    program(tokens, lengths)


@pytest.mark.parametrize("number", (0, 4, -1))
def test_lengths_outside_the_sequence_are_refused(rng, number):
    program = tagger(rng)
    with pytest.raises(ValueError, match=f"lstm: expected lengths from 1 to 3, got {number}"):
        program(np.zeros((2, 3), int), np.array([3, number]))


@pytest.mark.parametrize(
    "operator, arguments",
    (
        ("index_select", {"self": Value("x"), "dim": 1, "index": Value("i")}),
        ("gather", {"self": Value("x"), "dim": 0, "index": Value("j")}),
    ),
)
def test_other_places_outside_a_table_are_refused(operator, arguments):
    inputs = {"x": (FLOAT, (2, 3)), "i": ("int64", (1,)), "j": ("int64", (1, 3))}
    program = make_program(inputs, [(operator, arguments, ("y",))], ("y",))
    x = np.arange(6, dtype=FLOAT).reshape(2, 3)
    assert program(x, [1], [[1, 0, 1]]).tolist() == (
        [[1], [4]] if operator == "index_select" else [[3, 1, 5]]
    )
    with pytest.raises(ValueError, match=f"{operator}: expected indices from 0 to "):
        program(x, [3], [[1, 0, 2]])


def test_constant_places_are_checked_when_the_plan_is_made():
    nodes = [("index_select", {"self": Value("x"), "dim": 0, "index": Value("i")}, ("y",))]
    program = make_program({"x": (FLOAT, ("B", 3))}, nodes, ("y",), {"i": np.array([4])})
    assert program(np.ones((5, 3), FLOAT)).shape == (1, 3)
    with pytest.raises(ValueError, match="index_select: expected indices from 0 to 3, got 4"):
        program(np.ones((4, 3), FLOAT))


def failing_later(act):
    """A planned program of a definition that acts in each call, and its input."""
    program, x = reference_only(), np.ones((2, 3), FLOAT)
    is_planned = []

    def cumsum(**arguments):
        if is_planned:
            act()
        return np.cumsum(arguments["self"], 0)

    program._tools = program._tools._replace(references={"cumsum": cumsum})
    program.plan([x])
    is_planned.append(True)
    return program, x


def test_an_error_of_a_definition_reaches_its_caller():
    errors = [ValueError("first"), KeyboardInterrupt(), MemoryError("third")]

    def act():
        if errors:
            raise errors.pop(0)

    program, x = failing_later(act)
    for kind in (ValueError, KeyboardInterrupt, MemoryError):
        with pytest.raises(kind):
            program(x)
    assert program(x).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_a_signal_during_a_definition_reaches_its_caller():
    program, x = failing_later(lambda: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            program(x)
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_of_threads_are_their_own(rng):
    """One thread's wrong tokens are not the other's error."""
    program = tagger(rng)
    good, bad, lengths = np.zeros((2, 3), int), np.full((2, 3), 99), np.array([3, 1])
    program(good, lengths)
    seen = {True: 0, False: 0}

    def work(tokens, is_wrong):
        for _ in range(300):
            try:
                program(tokens, lengths)
            except ValueError:
                seen[is_wrong] += 1

    threads = [threading.Thread(target=work, args=a) for a in ((good, False), (bad, True))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {True: 300, False: 0}


def test_results_whose_shape_depends_on_numbers_are_refused():
    program = reference_only("nonzero", {"self": Value("x")})
    with pytest.raises(ValueError, match="nonzero: expected a result whose shape depends on sizes alone"):
        program(np.zeros((2, 3), FLOAT))


def test_unknown_operators_are_named():
    with pytest.raises(ValueError, match="expected operators that fastrnn has, got launch"):
        reference_only("launch")(np.ones((2, 3), FLOAT))


@pytest.mark.parametrize(
    "operator, arguments, words",
    (
        ("linear", {"input": Value("x"), "weight": Value("w")}, "4 features"),
        ("mm", {"self": Value("x"), "mat2": Value("w")}, "features"),
        ("linear", {"input": Value("x"), "weight": Value("v"), "bias": Value("w")}, "a bias of shape"),
        ("layer_norm", {"input": Value("x"), "normalized_shape": (3,), "weight": Value("n")}, "weights of 3"),
        ("layer_norm", {"input": Value("x"), "normalized_shape": (4,)}, "last axes of shape"),
        ("select", {"self": Value("x"), "dim": 1, "index": 3}, "an index of an axis of size 3"),
        ("narrow", {"self": Value("x"), "dim": 1, "start": 2, "length": 5}, "parts that lie inside"),
        ("expand", {"self": Value("x"), "size": (2, 9)}, "parts that lie inside"),
        ("zeros", {"size": (2**40, 2**40)}, "zeros: expected"),
        ("zeros", {"size": (-3,)}, "zeros"),
        ("add", {"self": Value("x"), "other": Value("w")}, "add: expected arguments that fit together"),
        ("add", {"self": Value("x"), "wrong": 1}, "arguments that fit together"),
        ("add", {"self": (), "other": {}}, "arguments that fit together"),
        ("view", {"self": Value("x"), "size": (7,)}, "elements"),
        ("conv1d", {"input": Value("c"), "weight": Value("k"), "stride": (0,)}, "numbers of at least 1"),
        ("conv1d", {"input": Value("c"), "weight": Value("k"), "padding": (-9,)}, "numbers of at least 0"),
        ("conv1d", {"input": Value("c"), "weight": Value("k"), "groups": 0}, "groups that divide"),
        ("conv1d", {"input": Value("c"), "weight": Value("k"), "bias": Value("w")}, "a bias of shape"),
        ("max_pool1d", {"self": Value("c"), "kernel_size": 1, "stride": -1}, "numbers of at least 1"),
        (
            "im2col",
            {"self": Value("q"), "kernel_size": 2, "dilation": 9, "padding": 0, "stride": -1},
            "im2col",
        ),
        ("unfold", {"self": Value("x"), "dimension": 1, "size": 2, "step": -1}, "unfold: expected"),
    ),
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_it_runs(operator, arguments, words):
    """Compiled steps rely on their sizes: nothing reads beyond an array, whatever a graph says."""
    inputs = {"x": (FLOAT, (2, 3)), "c": (FLOAT, (1, 1, 3)), "q": (FLOAT, (1, 1, 3, 3))}
    shapes = {"w": (5, 4), "v": (5, 3), "n": (2,), "k": (1, 1, 1)}
    constants = {name: np.ones(shape, FLOAT) for name, shape in shapes.items()}
    nodes = [(operator, arguments, ("y",)), ("mul", {"self": Value("y"), "other": 2.0}, ("z",))]
    program = make_program(inputs, nodes, ("z",), constants)
    with pytest.raises(ValueError, match=words):
        program(*(np.ones(shape, FLOAT) for _, shape in inputs.values()))


@pytest.mark.parametrize("change", ("weight_hh", "bias_hh", "hx", "one state", "num_layers", "lengths"))
def test_recurrent_weights_that_do_not_fit_are_refused(rng, change):
    program = tagger(rng)
    spec = program.spec
    nodes, constants = list(spec.graph.nodes), dict(spec.graph.constants)
    index = next(i for i, node in enumerate(nodes) if node.operator == "lstm")
    arguments = dict(nodes[index].arguments)
    if change in ("weight_hh", "bias_hh"):
        constants[f"lstm.{change}_l0"] = constants[f"lstm.{change}_l0"][:-1]
    elif change == "hx":
        arguments["hx"] = (Value("e"), Value("c0"))
    elif change == "one state":
        arguments["hx"] = (Value("h0"),)
    elif change == "num_layers":
        arguments["num_layers"] = 3
    else:
        arguments["lengths"] = Value("tokens")
    nodes[index] = nodes[index]._replace(arguments=arguments)
    graph = spec.graph._replace(nodes=tuple(nodes), constants=constants)
    with pytest.raises(ValueError, match="lstm: expected"):
        fastrnn.Program(spec._replace(graph=graph))(np.zeros((2, 3), int), np.array([3, 1]))


def test_sizes_that_cannot_be_computed_are_refused():
    for size in (Size("//", 1, 0), Size("**", 9**9, 9**9), Size("/", Size("dim", "x", 0), 0)):
        with pytest.raises(ValueError, match="program: expected sizes that"):
            reference_only("zeros", {"size": (size,)})(np.ones((2, 3), FLOAT))


# ---------------------------------------------------------------- verification


def test_verify_with_no_arguments_compares_with_the_definitions(rng):
    result = tagger(rng).verify()
    assert result["passed"] and result["values"] > 0 and result["hint"] == ""
    assert 0 < result["largest_error"] < result["tolerance"] < 1e-4


def test_verify_names_the_results_that_differ(rng):
    program = tagger(rng)
    tokens, lengths = rng.integers(0, 10, (3, 6)), np.array([6, 2, 4])
    result = program(tokens, lengths)
    assert program.verify((tokens, lengths), result)["passed"]
    assert program.verify((tokens,), result, kwargs={"lengths": lengths})["passed"]
    wrong = {**result, "h": result["h"] + 0.5}
    found = program.verify((tokens, lengths), wrong)
    assert not found["passed"] and 0.49 < found["largest_error"] < 0.51
    assert (
        found["hint"].startswith("result.h is 0.5 away, allowed ") and "The other 1 agree." in found["hint"]
    )
    assert program.verify((tokens, lengths), wrong, tolerance=0.6)["passed"]
    found = program.verify((tokens, lengths), {**result, "p": result["p"][:2]})
    assert not found["passed"] and found["largest_error"] == np.inf
    assert "result.p is of shape (3, 6, 3) instead of (2, 6, 3)" in found["hint"]
    found = program.verify((tokens, lengths), {**result, "p": result["p"] * np.nan})
    assert not found["passed"] and "not finite at the same places" in found["hint"]


def test_verify_refuses_half_an_example(rng):
    program = scaled()
    assert program.verify(np.ones((2, 3)), np.full((2, 3), 2.0))["passed"]
    with pytest.raises(ValueError, match="arguments and results together, got no results"):
        program.verify(np.ones((2, 3)))
    with pytest.raises(TypeError, match="expected x"):
        program.verify(None, np.ones((2, 3)))
    with pytest.raises(TypeError, match="tolerance to be a number"):
        program.verify(np.ones((2, 3)), np.ones((2, 3)), tolerance="x")


def test_whole_numbers_have_to_be_equal():
    program = make_program(
        {"x": (FLOAT, ("B", 3))}, [("argmax", {"self": Value("x"), "dim": 1}, ("y",))], ("y",)
    )
    x = np.array([[1, 3, 2], [5, 4, 3]], FLOAT)
    assert program.verify(x, np.array([1, 0]))["passed"]
    assert not program.verify(x, np.array([1, 1]))["passed"]


def test_complex_results_are_compared():
    nodes = [("fft_fft", {"self": Value("x")}, ("y",))]
    program = make_program({"x": (FLOAT, ("B", 8))}, nodes, ("y",))
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(FLOAT)
    assert program.verify()["passed"]
    assert program.verify(x, np.fft.fft(x).astype("complex64"))["passed"]
    assert not program.verify(x, np.fft.fft(x).conj())["passed"]


# ---------------------------------------------------------------- copies


def test_copies_share_the_program_and_pickles_keep_all_of_it(rng):
    program = tagger(rng, threads=1)
    tokens, lengths = rng.integers(0, 10, (3, 6)), np.array([6, 2, 4])
    wanted = program(tokens, lengths)
    assert copy.copy(program) is program and copy.deepcopy([program])[0] is program
    program.golden_inputs = ((tokens, lengths),)
    other = pickle.loads(pickle.dumps(program))
    np.testing.assert_array_equal(other(tokens, lengths)["p"], wanted["p"])
    assert (other.threads, other.backend, other.precision) == (1, "auto", "float32")
    np.testing.assert_array_equal(other.golden_inputs[0][0], tokens)
    wide = pickle.loads(pickle.dumps(tagger(rng, precision="float64")))
    assert wide.precision == "float64" and wide(tokens, lengths)["p"].dtype == np.float64


def test_a_program_can_be_printed(rng):
    assert repr(tagger(rng)) == "Program(tokens (B, T), lengths (B,): 6 operators)"


def test_loops_in_loops_are_refused():
    program = counter()
    (node, *rest) = program.graph.nodes
    outer = node._replace(
        body=node.body._replace(
            nodes=(
                Node(
                    "loop",
                    {},
                    ("a", "b", "c"),
                    "",
                    node.body._replace(
                        carried=(("s2", "s", "twice2"), ("t2", "total", "sum2")),
                        collected=("sum2",),
                        last=("sum2", "twice2"),
                        nodes=tuple(
                            Node(
                                n.operator,
                                {
                                    "self": Value({"s": "s2", "total": "t2"}[n.arguments["self"].name]),
                                    "other": Value("twice2")
                                    if isinstance(n.arguments["other"], Value)
                                    else 2.0,
                                },
                                (f"{n.outputs[0]}2",),
                            )
                            for n in node.body.nodes
                        ),
                    ),
                ),
                *node.body.nodes,
            )
        )
    )
    graph = program.graph._replace(nodes=(outer, *rest))
    with pytest.raises(ValueError, match="loops that are not nested"):
        fastrnn.Program(program.spec._replace(graph=graph))(np.ones((1, 3), FLOAT), np.ones((1, 3), FLOAT))
