"""Small programs, written by hand: what tests need without torch."""

import numpy as np

from fastrnn.graph import Graph, Input, Loop, Node, ProgramSpec, Size, StateLink, Value
from fastrnn.program.program import Program


def make_spec(inputs, nodes, outputs, constants=None, states=(), arguments=None, results=None):
    """The specification of a program.

    inputs: {name: (dtype, shape)}. nodes: (operator, arguments, outputs) or (..., where), or Nodes. Its
    arguments are the visible inputs by position and its results a tuple, unless structures say otherwise.
    """
    graph = Graph(
        tuple(Input(name, dtype, tuple(shape)) for name, (dtype, shape) in inputs.items()),
        tuple(node if isinstance(node, Node) else Node(*node) for node in nodes),
        tuple(outputs),
        dict(constants or {}),
        tuple(states),
    )
    visible = [name for name in inputs if name not in graph.hidden]
    if arguments is None:
        arguments = {"tuple": [{"array": i} for i in range(len(visible))]}
    if results is None:
        results = {"tuple": [{"array": i} for i in range(len(outputs))]}
        results = results if len(outputs) > 1 else {"array": 0}
    return ProgramSpec(graph, {"tuple": [arguments, {"dict": {}}]}, results, tuple(visible))


def make_program(*args, threads=None, precision=None, backend="auto", **options):
    """The program of such a specification."""
    return Program(make_spec(*args, **options), threads=threads, precision=precision, backend=backend)


def tagger(rng, **options):
    """tokens (B, T) and lengths (B,) to probabilities (B, T, 3): an embedding, an LSTM, a projection."""
    weights = {
        "embedding.weight": rng.standard_normal((10, 4)),
        "lstm.weight_ih_l0": rng.standard_normal((20, 4)) / 2,
        "lstm.weight_hh_l0": rng.standard_normal((20, 5)) / 2,
        "lstm.bias_ih_l0": rng.standard_normal(20),
        "lstm.bias_hh_l0": rng.standard_normal(20),
        "fc.weight": rng.standard_normal((3, 5)),
        "fc.bias": rng.standard_normal(3),
    }
    constants = {name: array.astype(np.float32) for name, array in weights.items()}
    zeros = {"size": (1, Size("dim", "tokens", 0), 5), "dtype": "float32"}
    lstm = {
        "input": Value("e"),
        "hx": (Value("h0"), Value("c0")),
        "params": tuple(Value(name) for name in weights if name.startswith("lstm")),
        "has_biases": True,
        "num_layers": 1,
        "dropout": 0.0,
        "train": False,
        "bidirectional": False,
        "batch_first": True,
        "lengths": Value("lengths"),
    }
    nodes = [
        ("embedding", {"weight": Value("embedding.weight"), "indices": Value("tokens")}, ("e",), "m.py:4"),
        ("zeros", zeros, ("h0",)),
        ("zeros", zeros, ("c0",)),
        ("lstm", lstm, ("y", "h", None)),
        (
            "linear",
            {"input": Value("y"), "weight": Value("fc.weight"), "bias": Value("fc.bias")},
            ("logits",),
        ),
        ("softmax", {"self": Value("logits"), "dim": -1}, ("p",)),
    ]
    inputs = {"tokens": ("int64", ("B", "T")), "lengths": ("int64", ("B",))}
    results = {"dict": {"p": {"array": 0}, "h": {"array": 1}}}
    return make_program(inputs, nodes, ("p", "h"), constants, results=results, **options)


def arrays_of(rng, **shapes):
    """Random arrays of these shapes, by name."""
    return {name: (rng.standard_normal(shape) / 2).astype(np.float32) for name, shape in shapes.items()}


def convolved(rng, **options):
    """x (B, T, 4): a causal convolution, a GRU, a transposed convolution over channels, a projection."""
    constants = arrays_of(rng, conv=(6, 4, 3), ih=(24, 6), hh=(24, 8), up=(8, 3, 2), fc=(5, 6))
    zeros = {"size": (1, Size("dim", "x", 0), 8), "dtype": "float32"}
    gru = {
        "input": Value("c"), "hx": Value("h0"), "params": (Value("ih"), Value("hh")), "has_biases": False,
        "num_layers": 1, "dropout": 0.0, "train": False, "bidirectional": False, "batch_first": True,
    }  # fmt: skip
    nodes = [
        ("transpose", {"self": Value("x"), "dim0": 1, "dim1": 2}, ("a",)),
        ("constant_pad_nd", {"self": Value("a"), "pad": (2, 0), "value": 0.0}, ("padded",)),
        ("conv1d", {"input": Value("padded"), "weight": Value("conv"), "bias": None}, ("b",)),
        ("transpose", {"self": Value("b"), "dim0": 1, "dim1": 2}, ("c",)),
        ("zeros", zeros, ("h0",)),
        ("gru", gru, ("d", None)),
        ("transpose", {"self": Value("d"), "dim0": 1, "dim1": 2}, ("e",)),
        (
            "conv_transpose1d",
            {"input": Value("e"), "weight": Value("up"), "bias": None, "stride": (2,)},
            ("f",),
        ),
        ("transpose", {"self": Value("f"), "dim0": 1, "dim1": 2}, ("g",)),
        ("reshape", {"self": Value("g"), "shape": (Size("dim", "x", 0), -1, 6)}, ("i",)),
        ("linear", {"input": Value("i"), "weight": Value("fc"), "bias": None}, ("y",)),
    ]
    return make_program({"x": ("float32", ("B", "T", 4))}, nodes, ("y",), constants, **options)


def counter(**options):
    """x (B, 3) and state (B, 3) to y and the next state, by a loop: y = x + 3 state, state * 2 ** 2 + 1."""
    body = Loop(
        (
            Node("mul", {"self": Value("s"), "other": 2.0}, ("twice",)),
            Node("add", {"self": Value("total"), "other": Value("twice")}, ("sum",)),
        ),
        2,
        (("s", "state", "twice"), ("total", "x", "sum")),
        ("sum",),
        ("sum", "twice"),
    )
    nodes = [
        Node("loop", {}, ("all", "y", "last"), "m.py:9: for _ in range(2):", body),
        Node("add", {"self": Value("last"), "other": Value("one")}, ("next",)),
    ]
    inputs = {"x": ("float32", ("B", 3)), "state": ("float32", ("B", 3))}
    constants = {"one": np.ones(3, np.float32)}
    links = (StateLink("state", "next"),)
    return make_program(inputs, nodes, ("y", "all", "next"), constants, links, **options)


def small(count=10, **options):
    """x (B, 8) through that many small operators that are not fused."""
    nodes = [
        ("softmax", {"self": Value(f"v{i}"), "dim": -1}, (f"v{i + 1}",))
        if not i % 2
        else ("mm", {"self": Value(f"v{i}"), "mat2": Value("w")}, (f"v{i + 1}",))
        for i in range(count)
    ]
    constants = {"w": np.eye(8, dtype=np.float32)}
    return make_program({"v0": ("float32", ("B", 8))}, nodes, (f"v{count}",), constants, **options)
