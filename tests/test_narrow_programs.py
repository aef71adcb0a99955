"""Programs with narrow weights: which are narrow, what the program computes, streams."""

import pickle

import numpy as np
import pytest
from graphs import arrays_of, convolved, make_program, make_spec, tagger

import fastrnn
from fastrnn.engine import backends
from fastrnn.graph import Loop, Node, Size, Value, all_nodes
from fastrnn.narrow import NarrowWeight, narrowed
from fastrnn.program.evaluate import evaluate
from fastrnn.program.program import Program

if not backends.ISAS:
    pytest.skip("simd is not built here, and blas has no narrow products", allow_module_level=True)

STORAGES = ("bfloat16", "int8")
FLOAT = np.float32


@pytest.fixture(params=STORAGES)
def storage(request):
    return request.param


def storages_of(program):
    """The storage of each constant, "" of those that are float32."""
    return {
        name: array.storage if isinstance(array, NarrowWeight) else ""
        for name, array in program.graph.constants.items()
    }


def with_x(operator, x, constants, count=1, **arguments):
    """x, and the specification of one operator of it. Constants are arguments by their names."""
    given = {name: Value(name) for name in constants}
    dtype = "int64" if x.dtype.kind == "i" else "float32"
    outputs = tuple("yhc"[:count])
    node = (operator, {**given, **arguments}, outputs)
    return x, make_spec({"x": (dtype, x.shape)}, [node], outputs, constants)


def convolution(rng, operator, weight, bias, x, **options):
    constants = arrays_of(rng, weight=weight, bias=bias)
    value = rng.standard_normal(x).astype(FLOAT)
    return with_x(operator, value, constants, input=Value("x"), **options)


def recurrent(rng, kind, gates, layers=1, directions=1, projection=0, biases=True):
    size, hidden, steps, rows = 5, 8, 3, 4
    out = projection or hidden
    shapes = {}
    for index in range(layers * directions):
        columns = size if index < directions else directions * out
        shapes |= {f"ih{index}": (gates * hidden, columns), f"hh{index}": (gates * hidden, out)}
        if biases:
            shapes |= {f"bi{index}": gates * hidden, f"bh{index}": gates * hidden}
        if projection:
            shapes[f"hr{index}"] = (out, hidden)
    constants = arrays_of(rng, **shapes)
    constants["h0"] = np.zeros((layers * directions, rows, out), FLOAT)
    hx = Value("h0")
    if kind == "lstm":
        constants["c0"] = np.zeros((layers * directions, rows, hidden), FLOAT)
        hx = hx, Value("c0")
    arguments = {
        "input": Value("x"),
        "hx": hx,
        "params": tuple(map(Value, shapes)),
        "has_biases": biases,
        "num_layers": layers,
        "dropout": 0.0,
        "train": False,
        "bidirectional": directions == 2,
    }
    outputs = ("y", "h", "c") if kind == "lstm" else ("y", "h")
    x = rng.standard_normal((steps, rows, size)).astype(FLOAT)
    inputs = {"x": ("float32", ("T", rows, size))}
    return x, make_spec(inputs, [(kind, arguments, outputs)], outputs, constants)


def cell(rng, kind, gates, biases=True):
    shapes = {"w_ih": (gates * 8, 5), "w_hh": (gates * 8, 8)}
    shapes |= {"b_ih": gates * 8, "b_hh": gates * 8} if biases else {}
    constants = {**arrays_of(rng, **shapes), **arrays_of(rng, h=(3, 8), c=(3, 8))}
    hx = (Value("h"), Value("c")) if kind == "lstm" else Value("h")
    outputs = ("y", "z") if kind == "lstm" else ("y",)
    arguments = {"input": Value("x"), "hx": hx, **{name: Value(name) for name in shapes}}
    if kind != "lstm":
        del constants["c"]
    x = rng.standard_normal((3, 5)).astype(FLOAT)
    return x, make_spec(
        {"x": ("float32", (3, 5))}, [(f"{kind}_cell", arguments, outputs)], outputs, constants
    )


def embedding(rng):
    return with_x(
        "embedding", rng.integers(9, size=(4, 3)), arrays_of(rng, weight=(9, 6)), indices=Value("x")
    )


def product(rng, operator, names, shape=(5, 7), bias=None):
    x = rng.standard_normal(shape).astype(FLOAT)
    given = arrays_of(rng, w=(7, 6), **({} if bias is None else {"bias": bias}))
    arguments = dict(zip(names, (Value("x"), Value("w")), strict=True))
    if bias is not None:
        arguments["self"] = Value("bias")
    return x, make_spec({"x": ("float32", shape)}, [(operator, arguments, ("y",))], ("y",), given)


def linear(rng, bias=True):
    shapes = {"weight": (6, 7), **({"bias": 6} if bias else {})}
    x = rng.standard_normal((2, 5, 7)).astype(FLOAT)
    return with_x("linear", x, arrays_of(rng, **shapes), input=Value("x"))


OPERATORS = {
    "linear": linear,
    "linear without bias": lambda rng: linear(rng, False),
    "matmul": lambda rng: product(rng, "matmul", ("self", "other")),
    "matmul of rows": lambda rng: product(rng, "matmul", ("self", "other"), (2, 3, 7)),
    "matmul of a vector": lambda rng: product(rng, "matmul", ("self", "other"), (7,)),
    "mm": lambda rng: product(rng, "mm", ("self", "mat2")),
    "addmm": lambda rng: product(rng, "addmm", ("mat1", "mat2"), bias=6),
    "addmm of a matrix": lambda rng: product(rng, "addmm", ("mat1", "mat2"), bias=(5, 6)),
    "embedding": embedding,
    "conv1d": lambda rng: convolution(rng, "conv1d", (6, 4, 3), 6, (2, 4, 9), padding=(1,), stride=(2,)),
    "conv1d, groups": lambda rng: convolution(
        rng, "conv1d", (6, 2, 3), 6, (2, 4, 9), groups=2, dilation=(2,)
    ),
    "conv1d of one": lambda rng: convolution(rng, "conv1d", (6, 4, 1), 6, (2, 4, 9)),
    "conv1d, unbatched": lambda rng: convolution(rng, "conv1d", (6, 4, 3), 6, (4, 9), padding="same"),
    "conv2d": lambda rng: convolution(rng, "conv2d", (6, 4, 3, 2), 6, (2, 4, 7, 5), padding=(1, 0)),
    "conv2d, groups": lambda rng: convolution(
        rng, "conv2d", (6, 2, 2, 3), 6, (2, 4, 7, 6), groups=2, stride=(1, 2), dilation=(2, 1)
    ),
    "conv_transpose1d": lambda rng: convolution(
        rng, "conv_transpose1d", (4, 6, 4), 6, (2, 4, 5), stride=(2,), padding=(1,)
    ),
    "conv_transpose1d, groups": lambda rng: convolution(
        rng, "conv_transpose1d", (4, 3, 3), 6, (2, 4, 5), groups=2, stride=(3,), output_padding=(1,)
    ),
    "conv_transpose1d with gaps": lambda rng: convolution(
        rng, "conv_transpose1d", (4, 6, 2), 6, (2, 4, 5), stride=(3,), dilation=(2,), padding=(1,)
    ),
    "conv_transpose2d": lambda rng: convolution(
        rng, "conv_transpose2d", (4, 3, 3, 2), 6, (2, 4, 3, 5), groups=2, stride=(2, 1), padding=(1, 0)
    ),
    "lstm": lambda rng: recurrent(rng, "lstm", 4),
    "lstm, all options": lambda rng: recurrent(rng, "lstm", 4, 2, 2, 3),
    "gru": lambda rng: recurrent(rng, "gru", 3, biases=False),
    "gru of two layers": lambda rng: recurrent(rng, "gru", 3, 2),
    "rnn_tanh": lambda rng: recurrent(rng, "rnn_tanh", 1, 1, 2),
    "rnn_relu": lambda rng: recurrent(rng, "rnn_relu", 1),
    "lstm_cell": lambda rng: cell(rng, "lstm", 4),
    "gru_cell": lambda rng: cell(rng, "gru", 3),
    "rnn_tanh_cell": lambda rng: cell(rng, "rnn_tanh", 1, False),
    "rnn_relu_cell": lambda rng: cell(rng, "rnn_relu", 1),
}
PLAIN = {"weight", "w", "w.weight", "w_ih", "w_hh"}


@pytest.mark.parametrize("case", OPERATORS)
def test_an_operator_is_what_the_definition_gives(rng, case, storage):
    x, spec = OPERATORS[case](rng)
    program = Program(spec, precision=storage)
    found = storages_of(program)
    for name, own in found.items():
        assert own == (storage if name in PLAIN or name[:2] in ("ih", "hh", "hr") else "")
    assert program.precision == storage and storage in set(found.values())
    wanted = evaluate(program.graph, {"x": x}, program.graph.outputs)
    results = flat(program(x))
    # Gates err by up to 5e-5, which may round h to another narrow number in the next step.
    allowed = 5e-3 if case.startswith(("lstm", "gru", "rnn")) else 2e-5
    for got, other in zip(results, wanted, strict=True):
        assert got.dtype == other.dtype == np.float32
        np.testing.assert_allclose(got, other, 0, allowed * np.abs(other).max())
    for got, other in zip(results, flat(Program(spec)(x)), strict=True):
        assert 0 < np.abs(got - other).max() < 0.05 * np.abs(other).max()
    assert program.verify()["passed"]


@pytest.mark.parametrize("case", OPERATORS)
def test_precisions_follow_each_other(rng, case):
    """Wide weights made of narrow ones are exact, and narrow ones stay as they are."""
    x, spec = OPERATORS[case](rng)
    for storage in STORAGES:
        program = Program(spec, precision=storage)
        wide = Program(program.spec, precision="float32")
        assert wide.precision == "float32" and "" in set(storages_of(wide).values())
        again = Program(wide.spec, precision="bfloat16") if storage == "bfloat16" else program
        other = Program(program.spec, precision=storage)
        for made in (again, other):
            assert all(np.array_equal(a, b) for a, b in zip(flat(made(x)), flat(program(x)), strict=True))
        assert Program(program.spec, precision="float64").precision == "float64"
        for got, near in zip(flat(wide(x)), flat(Program(spec)(x)), strict=True):
            assert np.abs(got - near).max() < 0.05 * np.abs(near).max()


def flat(results):
    return results if isinstance(results, tuple) else (results,)


# ---------------------------------------------------------------- which weights


def test_depthwise_convolutions_and_other_constants_stay_exact(rng, storage):
    constants = arrays_of(rng, deep=(4, 1, 3), up=(4, 2, 3), norm=4, plain=(1, 4, 1), vector=4)
    nodes = [
        ("conv1d", {"input": Value("x"), "weight": Value("deep"), "groups": 4, "padding": (1,)}, ("a",)),
        ("conv_transpose1d", {"input": Value("a"), "weight": Value("up"), "groups": 4}, ("b",)),
        ("mul", {"self": Value("x"), "other": Value("plain")}, ("c",)),
        ("transpose", {"self": Value("c"), "dim0": 1, "dim1": 2}, ("d",)),
        ("layer_norm", {"input": Value("d"), "normalized_shape": (4,), "weight": Value("norm")}, ("e",)),
        ("matmul", {"self": Value("e"), "other": Value("vector")}, ("f",)),
        ("matmul", {"self": Value("d"), "other": Value("c")}, ("g",)),
    ]
    spec = make_spec({"x": ("float32", ("B", 4, "T"))}, nodes, ("b", "f", "g"), constants)
    x = rng.standard_normal((2, 4, 6)).astype(FLOAT)
    program = Program(spec, precision=storage)
    assert set(storages_of(program).values()) == {""} and program.precision == "float32"
    assert all(np.array_equal(a, b) for a, b in zip(program(x), Program(spec)(x), strict=True))


def test_a_constant_that_is_used_otherwise_too_stays_exact_there(rng, storage):
    constants = arrays_of(rng, w=(4, 4))
    nodes = [
        ("linear", {"input": Value("x"), "weight": Value("w")}, ("a",)),
        ("add", {"self": Value("a"), "other": Value("w")}, ("y",)),
        ("linear", {"input": Value("x"), "weight": Value("w")}, ("z",)),
    ]
    spec = make_spec({"x": ("float32", (4, 4))}, nodes, ("y", "z"), constants)
    program = Program(spec, precision=storage)
    assert storages_of(program) == {"w": "", f"w.{storage}": storage}
    assert np.array_equal(program.graph.constants["w"], constants["w"])
    y, z = program(rng.standard_normal((4, 4)).astype(FLOAT))
    assert np.array_equal(y, z + constants["w"])


def test_an_embedding_and_a_projection_share_their_weight(rng, storage):
    constants = arrays_of(rng, table=(9, 5))
    nodes = [
        ("embedding", {"weight": Value("table"), "indices": Value("x")}, ("e",)),
        ("t", {"self": Value("table")}, ("turned",)),
        ("matmul", {"self": Value("e"), "other": Value("turned")}, ("y",)),
        ("linear", {"input": Value("e"), "weight": Value("table")}, ("z",)),
    ]
    program = make_program({"x": ("int64", ("B",))}, nodes, ("y", "z"), constants, precision=storage)
    assert storages_of(program) == {"table": storage} and len(program.graph.nodes) == 3
    y, z = program([1, 8, 0])
    assert np.array_equal(y, z)
    assert program.verify()["passed"]


def test_weights_that_follow_from_constants_are_narrow(rng, storage):
    """As a third of the weights of an attention. What they follow from is not kept."""
    constants = arrays_of(rng, whole=(12, 4))
    nodes = [
        ("chunk", {"self": Value("whole"), "chunks": 3}, ("q", "k", None)),
        ("linear", {"input": Value("x"), "weight": Value("q")}, ("a",)),
        ("t", {"self": Value("k")}, ("kt",)),
        ("mm", {"self": Value("x"), "mat2": Value("kt")}, ("b",)),
    ]
    program = make_program({"x": ("float32", ("n", 4))}, nodes, ("a", "b"), constants, precision=storage)
    assert set(storages_of(program).values()) == {storage} and len(program.graph.constants) == 2
    x = rng.standard_normal((3, 4)).astype(FLOAT)
    a, b = program(x)
    rows = np.asarray(narrowed("test", "w", constants["whole"][:8], storage))
    for got, own in ((a, rows[:4]), (b, rows[4:])):
        np.testing.assert_allclose(got, x @ own.T, 0.05, 0.05)


def test_batch_norms_are_folded_before_weights_are_rounded(rng, storage):
    constants = arrays_of(rng, w=(4, 3, 3), mean=4, scale=4, shift=4)
    constants["var"] = np.abs(rng.standard_normal(4)).astype(FLOAT) + 0.5
    norm = {
        "input": Value("a"), "weight": Value("scale"), "bias": Value("shift"),
        "running_mean": Value("mean"), "running_var": Value("var"),
    }  # fmt: skip
    nodes = [
        ("conv1d", {"input": Value("x"), "weight": Value("w"), "bias": None}, ("a",)),
        ("batch_norm", norm, ("y",)),
    ]
    inputs = {"x": ("float32", ("B", 3, "T"))}
    program = make_program(inputs, nodes, ("y",), constants, precision=storage)
    assert [node.operator for node in program.graph.nodes] == ["conv1d"]
    factor = constants["scale"] / np.sqrt(constants["var"] + 1e-5)
    folded = (constants["w"] * factor[:, None, None]).astype(FLOAT)
    (weight,) = (array for array in program.graph.constants.values() if isinstance(array, NarrowWeight))
    np.testing.assert_allclose(np.asarray(weight), folded, 0.01, np.abs(folded).max() / 200)
    assert program.verify()["passed"]


def test_a_mapping_is_for_recurrent_layers(rng):
    program = tagger(rng, precision={"recurrent": "int8"})
    assert {name for name, own in storages_of(program).items() if own} == {"lstm.weight_hh_l0"}
    assert program.precision == {"input": "float32", "recurrent": "int8"}
    both = tagger(rng, precision={"input": "bfloat16", "recurrent": "bfloat16"})
    assert both.precision == {"input": "bfloat16", "recurrent": "bfloat16"}
    assert tagger(rng, precision={}).precision == "float32"
    assert Program(both.spec, precision="int8").precision == "int8"
    assert Program(both.spec, precision={}).precision == "float32"
    assert "precision={'input': 'float32', 'recurrent': 'int8'}" in repr(program)


def test_several_precisions_are_mixed(rng):
    layers = [
        fastrnn.Linear.from_state_dict(arrays_of(rng, weight=(4, 4)), precision=precision)
        for precision in ("int8", "bfloat16")
    ]
    program = fastrnn.with_heads(layers[0], a=layers[1])
    assert program.precision == "mixed" and program.verify()["passed"]
    assert Program(program.spec, precision="int8").precision == "int8"


def test_what_no_product_may_use_is_refused(rng, storage):
    weight = narrowed("test", "w", rng.standard_normal((4, 4)), storage)
    for node in (
        ("add", {"self": Value("x"), "other": Value("w")}, ("y",)),
        ("linear", {"input": Value("w"), "weight": Value("x")}, ("y",)),
        ("conv1d", {"input": Value("x"), "weight": Value("w")}, ("y",)),
    ):
        with pytest.raises(ValueError, match=r"program: expected narrow (constants|weights)"):
            make_program({"x": ("float32", (4, 4))}, [node], ("y",), {"w": weight})


def test_int8_has_neither_nan_nor_infinity(rng):
    constants = arrays_of(rng, w=(4, 4))
    constants["w"][2, 1] = np.inf
    node = ("linear", {"input": Value("x"), "weight": Value("w")}, ("y",))
    inputs = {"x": ("float32", ("n", 4))}
    with pytest.raises(fastrnn.WeightError, match=r"^Program: expected finite numbers in w, got .* row 2\."):
        make_program(inputs, [node], ("y",), constants, precision="int8")
    program = make_program(inputs, [node], ("y",), constants, precision="bfloat16")
    assert np.isinf(program(np.ones((1, 4), FLOAT))[0, 2])


def test_no_wide_copy_is_kept(rng, storage):
    program = tagger(rng, precision=storage)
    assert program.spec.graph is program.graph
    kept = [array for array in program.graph.constants.values() if isinstance(array, np.ndarray)]
    assert {array.ndim for array in kept} == {1}
    program(rng.integers(0, 10, (2, 6)), [6, 3])
    for packed in program._tools.packed.values():
        assert not any(isinstance(part, np.ndarray) and part.ndim > 1 for part in packed)


def test_blas_has_no_narrow_products(rng, storage):
    with pytest.raises(ValueError, match="Program: expected weights stored as one of"):
        tagger(rng, precision=storage, backend="blas")


def test_a_pickled_program_is_the_same(rng, storage):
    program = tagger(rng, precision=storage)
    again = pickle.loads(pickle.dumps(program))
    given = rng.integers(0, 10, (2, 6)), [6, 3]
    assert again.precision == storage and storages_of(again) == storages_of(program)
    assert np.array_equal(again(*given)["p"], program(*given)["p"])


# ---------------------------------------------------------------- loops, streams


def looped(rng, **options):
    """x (T, B, 5) through a GRU cell in a loop, and a product by a transposed matrix in it."""
    constants = arrays_of(rng, w_ih=(24, 5), w_hh=(24, 8), b_ih=24, b_hh=24, w=(3, 8))
    cell = {name: Value(name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")}
    body = Loop(
        (
            Node("select", {"self": Value("x"), "dim": 0, "index": Size("step")}, ("x_t",)),
            Node("gru_cell", {"input": Value("x_t"), "hx": Value("h"), **cell}, ("after",)),
            Node("t", {"self": Value("w")}, ("turned",)),
            Node("matmul", {"self": Value("after"), "other": Value("turned")}, ("y_t",)),
        ),
        Size("dim", "x", 0),
        (("h", "h0", "after"),),
        ("y_t",),
        ("after",),
    )
    nodes = [
        ("zeros", {"size": (Size("dim", "x", 1), 8), "dtype": "float32"}, ("h0",)),
        Node("loop", {}, ("y", "last"), "", body),
    ]
    return make_program({"x": ("float32", ("T", "B", 5))}, nodes, ("y", "last"), constants, **options)


def test_cells_in_loops_are_narrow(rng, storage):
    program = looped(rng, precision=storage)
    found = storages_of(program)
    assert {name for name, own in found.items() if own} == {"w_ih", "w_hh", "w"}
    assert "t" not in {node.operator for node in all_nodes(program.graph.nodes)}
    x = rng.standard_normal((6, 3, 5)).astype(FLOAT)
    wanted = evaluate(program.graph, {"x": x}, program.graph.outputs)
    for got, other in zip(program(x), wanted, strict=True):
        np.testing.assert_allclose(got, other, 0, 2e-3)  # gates err by up to 5e-5
    stream = program.stream(time="T")
    steps = np.concatenate([stream.run(x[a:b])[0] for a, b in ((0, 1), (1, 4), (4, 6))])
    assert np.array_equal(steps, program(x)[0])


def test_streams_and_pools_have_the_bits_of_a_whole_call(rng, storage):
    program = convolved(rng, precision=storage)
    assert set(storages_of(program).values()) == {storage}
    x = rng.standard_normal((3, 9, 4)).astype(FLOAT)
    whole = program(x)
    stream = program.stream(time="T")
    pieces = [stream.run(x[:, a:b]) for a, b in ((0, 1), (1, 4), (4, 9))]
    assert np.array_equal(np.concatenate(pieces, 1), whole)
    pool = program.pool(2, time="T")
    ids = [pool.open() for _ in range(3)]
    steps = [pool.step(ids[::-1], x[::-1, t]) for t in range(9)]
    assert np.array_equal(np.stack(steps, 1)[::-1], whole)
    for rows in (1, 2):
        assert np.array_equal(program(x[:rows]), whole[:rows])
