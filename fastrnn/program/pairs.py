"""Golden pairs of a program: inputs, what the operators' definitions give for them, and the comparison.

`saving` keeps them in files, where they are data. Tolerances are those of a model of layers
(`saving.golden`): a share of the largest value, and more for a program that amplifies rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import join, message
from fastrnn.graph import Graph, Node, Value, all_nodes
from fastrnn.narrow import NarrowWeight
from fastrnn.program.evaluate import evaluate
from fastrnn.program.narrowing import has_narrow, widened, with_wide_tables
from fastrnn.program.passes import at_precision, wide_precision
from fastrnn.saving.golden import ROUNDINGS, SEED, Comparison, compare, moved, tolerance
from fastrnn.saving.program_file import GoldenPair

if TYPE_CHECKING:
    from fastrnn.program.program import Program

PAIRS = 2
# Sizes that are tried for inputs of which nobody gave an example.
SIZES = (3, 5, 8, 13, 16, 24, 40, 64, 100, 160, 512)
MOST_NAMED = 6
# What operators call a table, and the places in it.
TABLES = {
    "embedding": ("weight", "indices"),
    "index_select": ("self", "index"),
    "gather": ("self", "index"),
}


# ---------------------------------------------------------------- what the definitions give


def golden_pair(program: Program, inputs: Sequence[Array]) -> GoldenPair:
    """Return the outputs and then the next states for some inputs, in float64, with their tolerances."""
    wanted, tolerances = _defined(program, inputs)
    return GoldenPair(tuple(inputs), tuple(wanted), tuple(tolerances))


def allowed(program: Program, inputs: Sequence[Array]) -> tuple[float, ...]:
    """Return how far each result may be from another correct one."""
    _, tolerances = _defined(program, inputs)
    return tuple(tolerances[: len(program.graph.outputs)])


def _defined(program: Program, inputs: Sequence[Array]) -> tuple[list[Array], list[float]]:
    graph = program.graph
    wide = _evaluated(with_wide_tables(graph), inputs)
    random = np.random.default_rng(SEED)
    rounded = _rounded(graph.constants, random)
    if is_narrow := has_narrow(graph):
        graph = widened(graph, lambda weight: moved(weight, random.choice((-0.5, 0.5), weight.shape)))
        rounded = {**rounded, **{n: a for n, a in graph.constants.items() if n not in rounded}}
    other = _evaluated(graph._replace(constants=rounded), inputs)
    precision = wide_precision(graph)
    return wide, [_tolerance(w, o, precision, is_narrow) for w, o in zip(wide, other, strict=True)]


def _evaluated(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """The outputs and next states of a graph in float64."""
    graph = at_precision(graph, "float64")
    hidden = {name: graph.constants[initial] for name, initial in graph.hidden.items()}
    visible = [form for form in graph.inputs if form.name not in hidden]
    given = {form.name: array.astype(form.dtype) for form, array in zip(visible, inputs, strict=True)}
    wanted = [*graph.outputs, *(link.output for link in graph.states)]
    return [np.asarray(array) for array in evaluate(graph, given | hidden, wanted)]


def _rounded(constants: Mapping[str, Any], random: np.random.Generator) -> dict[str, Array]:
    """The wide constants, in float64, with every real number rounded to a neighbour, up or down at random."""
    result = {name: array for name, array in constants.items() if not isinstance(array, NarrowWeight)}
    for name, array in result.items():
        if array.dtype.kind == "f":
            change = np.finfo(array.dtype).eps * random.choice((-0.5, 0.5), array.shape)
            result[name] = np.asarray(array * (1 + change))
    return result


def _tolerance(wanted: Array, other: Array, precision: str, is_narrow: bool) -> float:
    if wanted.shape != other.shape:
        return 0.0
    if wanted.dtype.kind in "fc":
        return tolerance(wanted, other, precision, is_narrow)
    change = np.abs(other.astype(np.float64) - wanted.astype(np.float64))
    return float(ROUNDINGS * change.max(initial=0.0))


# ---------------------------------------------------------------- comparison


def fits(program: Program, pair: GoldenPair) -> bool:
    """Whether the inputs of a pair, as a file has them, are of the program's shapes and kinds."""
    sizes: dict[str, int] = {}
    for array, form in zip(pair.inputs, program.inputs, strict=True):
        if array.dtype.kind != np.dtype(form.dtype).kind or array.ndim != len(form.shape):
            return False
        for size, wanted in zip(array.shape, form.shape, strict=True):
            if size != (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted):
                return False
    return True


def compare_pair(program: Program, pair: GoldenPair) -> Comparison:
    """Run a program and compare what it gives with a pair, whose outputs may end before the next states."""
    inputs = [array.astype(form.dtype) for array, form in zip(pair.inputs, program.inputs, strict=True)]
    outputs = program.run([*(np.asarray(array, order="C") for array in inputs), *program._hidden])
    return compare_outputs(program, outputs[: len(pair.outputs)], pair.outputs, pair.tolerances)


def compare_outputs(
    program: Program, outputs: Sequence[Array], wanted: Sequence[Array], tolerances: Sequence[float]
) -> Comparison:
    """Compare outputs with expected ones. The numbers are those of the output that is furthest away."""
    each = [_compare(*three) for three in zip(outputs, wanted, tolerances, strict=True)]
    names = program.output_names[: len(each)]
    failed = [(name, one) for name, one in zip(names, each, strict=True) if not one["passed"]]
    worst = max(each, key=_excess, default=None)
    return {
        "passed": not failed,
        "largest_error": worst["largest_error"] if worst else 0.0,
        "tolerance": worst["tolerance"] if worst else 0.0,
        "values": sum(one["values"] for one in each),
        "hint": _told(failed, len(each)),
    }


def _excess(one: Comparison) -> tuple[bool, float]:
    error, most = one["largest_error"], one["tolerance"]
    if np.isnan(error):
        error = np.inf
    return not one["passed"], error / most if most else error


def _compare(output: Array, wanted: Array, most: float) -> Comparison:
    if output.shape != wanted.shape:
        return {
            "passed": False,
            "largest_error": float("inf"),
            "tolerance": most,
            "values": int(wanted.size),
            "hint": f"of shape {output.shape} instead of {wanted.shape}",
        }
    if output.dtype.kind == "c" or wanted.dtype.kind == "c":
        output, wanted = (np.stack([array.real, array.imag]) for array in (output, wanted))
    if output.dtype.kind != "f":
        output = output.astype(np.float64)
    one = compare(output, wanted, most)
    if one["hint"]:
        one["hint"] = f"not finite at the same places ({one['hint'].removesuffix('.')})"
    else:
        one["hint"] = f"{one['largest_error']:.3g} away, allowed {most:.3g}"
    return one


def _told(failed: Sequence[tuple[str, Comparison]], count: int) -> str:
    if not failed:
        return ""
    told = [f"{name} is {one['hint']}" for name, one in failed[:MOST_NAMED]]
    more = f", and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
    agreed = f" The other {count - len(failed)} agree." if 0 < len(failed) < count else ""
    return f"{'; '.join(told)}{more}.{agreed}"


def join_comparisons(each: Sequence[Comparison]) -> Comparison:
    """Return one comparison for several. The numbers are those of the one that is furthest away."""
    worst = max(each, key=_excess)
    hints = [one["hint"] for one in each if one["hint"]]
    return {
        **worst,
        "passed": all(one["passed"] for one in each),
        "values": sum(one["values"] for one in each),
        "hint": hints[0] if hints else "",
    }


# ---------------------------------------------------------------- inputs that nobody gave


def make_inputs(program: Program) -> tuple[tuple[Array, ...], ...]:
    """Return seeded inputs at two sizes at which the program runs.

    Whole numbers are places in the table that they index, lengths are valid, and others are 1.

    Raises
    ------
    ValueError
        It runs at none of the sizes that were tried.
    """
    names = list(dict.fromkeys(s for form in program.inputs for s in form.shape if isinstance(s, str)))
    found = []
    for sizes in _sizes(names):
        inputs = _inputs_of(program, sizes)
        try:
            program.run([*inputs, *program._hidden])
        except ValueError:
            continue
        found.append(inputs)
        if len(found) == PAIRS or not names:
            return tuple(found)
    if not found:
        hint = "Pass an example, whose sizes are taken."
        raise ValueError(
            message("Program", f"sizes of {join(names or ['no axis'])} at which it runs", "none", hint)
        )
    return tuple(found)


def _sizes(names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Sizes of axes to try: all different first, then all the same."""
    if not names:
        yield {}
        return
    for begin in range(len(SIZES)):
        yield {name: SIZES[(begin + i) % len(SIZES)] for i, name in enumerate(names)}
    for size in SIZES:
        yield dict.fromkeys(names, size)


def _inputs_of(program: Program, sizes: Mapping[str, int]) -> tuple[Array, ...]:
    random = np.random.default_rng(SEED)
    ranges = _ranges(program.graph)
    inputs = []
    for form in program.inputs:
        shape = tuple(sizes.get(size, size) for size in form.shape)  # type: ignore[arg-type]
        kind = np.dtype(form.dtype).kind
        array: Array
        if kind == "b":
            array = random.random(shape) < 0.5
        elif kind in "iu":
            low, high = ranges.get(form.name, (1, 2))
            array = random.integers(low, high or min(sizes.values(), default=1) + 1, size=shape)
        else:
            array = random.standard_normal(shape)
            if kind == "c":
                array = array + 1j * random.standard_normal(shape)
        inputs.append(np.asarray(array, form.dtype))
    return tuple(inputs)


def _ranges(graph: Graph) -> dict[str, tuple[int, int]]:
    """The first whole number that an input may hold, and the one after the last.

    Known are what indexes a constant table, classes of a known number, and lengths, for which the latter is
    0: they end with the smallest size.
    """
    ranges: dict[str, tuple[int, int]] = {}
    for node in all_nodes(graph.nodes):
        lengths = node.arguments.get("lengths")
        if isinstance(lengths, Value):
            ranges[lengths.name] = (1, 0)
        index, size = _indexed(node, graph.constants)
        if index is not None:
            ranges[index.name] = (0, max(min(size, ranges.get(index.name, (0, size))[1]), 1))
    return ranges


def _indexed(node: Node, constants: Mapping[str, Array]) -> tuple[Value | None, int]:
    """The value whose numbers are places in a constant table or classes, and how many of these there are."""
    table, index = (node.arguments.get(name) for name in TABLES.get(node.operator, ("", "")))
    classes, tokens = node.arguments.get("num_classes"), node.arguments.get("self")
    if node.operator == "one_hot" and isinstance(classes, int) and isinstance(tokens, Value):
        return tokens, classes
    if isinstance(table, Value) and isinstance(index, Value) and table.name in constants:
        axis, array = node.arguments.get("dim", 0), constants[table.name]
        if isinstance(axis, int) and -array.ndim <= axis < array.ndim:
            return index, array.shape[axis]
    return None, 0


def smallest(candidates: Sequence[Sequence[Array]]) -> tuple[tuple[Array, ...], ...]:
    """Return the inputs that take the fewest bytes, at two sizes."""
    chosen = sorted(candidates, key=lambda arrays: sum(array.nbytes for array in arrays))
    return tuple(tuple(arrays) for arrays in itertools.islice(chosen, PAIRS))
