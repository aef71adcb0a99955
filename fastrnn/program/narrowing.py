"""Programs with narrow weights: which constants become narrow, and how they become wide again.

Weights of products and tables of embeddings do: see `graph.weights_of`. A product by a constant matrix
becomes a "linear" first, whose weight has output rows first. Those of depthwise convolutions stay float32,
since they are no products of matrices. A constant that is used otherwise too stays as it was there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import MATRICES, WIDE, Precision, check_precision, check_precisions, shortest_precision
from fastrnn.errors import message, quote
from fastrnn.graph import (
    LAYERS,
    Graph,
    Node,
    Size,
    Value,
    Weight,
    all_nodes,
    map_argument,
    values_of,
    weights_of,
)
from fastrnn.narrow import STORAGES, NarrowWeight, narrowed
from fastrnn.program.evaluate import evaluate
from fastrnn.program.passes import at_precision, prepared, wide_precision

# The precisions that programs have.
PRECISIONS = (*WIDE, *STORAGES)
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d")
CONVOLUTIONS = ("conv1d", "conv2d", *TRANSPOSED)
# What has to be constant for weights to be packed, as far as it is not all of "params".
PACKED = {
    "embedding": ("weight",),
    "linear": ("weight",),
    **dict.fromkeys(CONVOLUTIONS, ("weight", "bias")),
    **dict.fromkeys((f"{kind}_cell" for kind in LAYERS), ("w_ih", "w_hh", "b_ih", "b_hh")),
}
# Products by a matrix: what they call both sides.
PRODUCTS = {"matmul": ("self", "other"), "mm": ("self", "mat2"), "addmm": ("mat1", "mat2")}
# The precision of a program whose weights have several that no precision of `load` names.
MIXED = "mixed"


# ---------------------------------------------------------------- the whole graph


def has_narrow(graph: Graph) -> bool:
    """Whether a graph has narrow weights."""
    return any(isinstance(array, NarrowWeight) for array in graph.constants.values())


def recast(graph: Graph, precision: Precision) -> Graph:
    """Return the graph at a precision.

    Raises
    ------
    ValueError, WeightError
        There is no such precision, or a weight that is to become int8 holds NaN or infinity.
    """
    if isinstance(precision, str):
        check_precision("Program", precision, PRECISIONS)
    matrices = check_precisions("Program", precision)
    refuse_splits("Program", matrices.values())
    if STORAGES.keys() & matrices.values():
        # Batch norms are a part of weights before these are rounded.
        return narrow(prepared(at_precision(graph, "float32")), precision)
    return at_precision(widened(graph), precision if isinstance(precision, str) else "float32")


def refuse_splits(where: str, precisions: Iterable[str]) -> None:
    """Raise if one of the precisions is that of products of several parts, which programs do not have."""
    strange = [precision for precision in precisions if precision not in PRECISIONS]
    if strange:
        hint = "Layers and Sequentials have this one, programs do not."
        raise ValueError(message(where, f"a precision of {quote(PRECISIONS)}", repr(strange[0]), hint))


def precision_of(graph: Graph) -> Precision:
    """Return the precision of a graph."""
    return narrow_precision(graph) if has_narrow(graph) else wide_precision(graph)


def narrow(graph: Graph, precision: Precision) -> Graph:
    """Return a graph of float32 whose weights have this precision.

    Those that have it already stay as they are.

    Raises
    ------
    WeightError
        A weight holds NaN or infinity, and the storage is int8.
    """
    matrices = check_precisions("Program", precision)
    others = precision if isinstance(precision, str) else "float32"

    def wanted(node: Node, weight: Weight, now: Array | NarrowWeight) -> str:
        storage = matrices[weight.matrix] if weight.matrix else others
        return storage if isinstance(now, NarrowWeight) or _may_be_narrow(graph, node, weight) else "float32"

    graph = as_linear(graph, others in STORAGES)
    return _changed(graph, wanted, np.asarray)


def widened(graph: Graph, widen: Callable[[NarrowWeight], Array] = np.asarray) -> Graph:
    """Return the graph with wide weights alone, as `widen` gives them."""
    return _changed(graph, lambda node, weight, now: "float32", widen) if has_narrow(graph) else graph


def with_wide_tables(graph: Graph) -> Graph:
    """Return the graph with tables of embeddings that are wide. What they give is of their type then."""
    tables = {
        node.arguments["weight"].name
        for node in all_nodes(graph.nodes)
        if node.operator == "embedding" and isinstance(node.arguments.get("weight"), Value)
    }
    if not any(isinstance(graph.constants.get(name), NarrowWeight) for name in tables):
        return graph

    def wanted(node: Node, weight: Weight, now: Any) -> str:
        return "float32" if node.operator == "embedding" or not isinstance(now, NarrowWeight) else now.storage

    return _changed(graph, wanted, np.asarray)


def check_narrow(graph: Graph) -> None:
    """Raise ValueError unless narrow constants are weights, and nothing else."""
    is_narrow = {name for name, array in graph.constants.items() if isinstance(array, NarrowWeight)}
    if not is_narrow:
        return
    elsewhere = [*graph.outputs, *(name for link in graph.states for name in (link.output, link.initial))]
    for node in all_nodes(graph.nodes):
        places = {(weight.argument, weight.place): weight for weight in weights_of(node)}
        for name, argument in node.arguments.items():
            parts = enumerate(argument) if type(argument) is tuple else [(None, argument)]
            for index, part in parts:
                weight = places.get((name, index))
                if weight is None or not isinstance(part, Value):
                    elsewhere += values_of(part)
                elif part.name in is_narrow and graph.constants[part.name].ndim != weight.axes:
                    expected = f"narrow weights of {weight.axes} axes in {part.name}"
                    raise ValueError(message("program", expected, f"{graph.constants[part.name].ndim}"))
        if node.body is not None:
            elsewhere += [before for _, before, _ in node.body.carried]
            elsewhere += [*node.body.collected, *node.body.last, *values_of(node.body.count)]
            elsewhere += [after for _, _, after in node.body.carried]
    wrong = [name for name in elsewhere if name in is_narrow]
    if wrong:
        raise ValueError(message("program", "narrow constants that are weights of products", wrong[0]))


def storages_of(graph: Graph) -> list[str]:
    """Return the narrow storages of a graph's weights."""
    found = {array.storage for array in graph.constants.values() if isinstance(array, NarrowWeight)}
    return sorted(found)


def narrow_precision(graph: Graph) -> Precision:
    """Return the precision of a graph with narrow weights: that with which `narrow` would make the same.

    A mapping is that of the recurrent layers, beside which all else is float32. ``MIXED`` if none would.
    """
    found: dict[str, set[str]] = {}
    for node in all_nodes(graph.nodes):
        for weight in weights_of(node):
            now = _constant(graph, weight.of(node))
            if isinstance(now, NarrowWeight):
                found.setdefault(weight.matrix, set()).add(now.storage)
            elif _may_be_narrow(graph, node, weight):
                found.setdefault(weight.matrix, set()).add("float32")
        if (
            node.operator in PRODUCTS
            and _constant(graph, node.arguments.get(PRODUCTS[node.operator][1])) is not None
        ):
            found.setdefault("", set()).add("float32")
    if any(len(storages) > 1 for storages in found.values()):
        return MIXED
    each = {matrix: next(iter(storages)) for matrix, storages in found.items()}
    others = each.pop("", None)
    ordered = {matrix: each[matrix] for matrix in MATRICES if matrix in each}
    if not ordered:
        return others or "float32"
    whole = shortest_precision(ordered)
    if others is None or whole == others:
        return whole
    return ordered if others == "float32" else MIXED


def _may_be_narrow(graph: Graph, node: Node, place: Weight) -> bool:
    """Whether a wide weight may be narrow: it is a constant matrix of a product that has packed weights."""
    weight = _constant(graph, place.of(node))
    if weight is None or weight.dtype != np.float32 or weight.ndim != place.axes or not weight.size:
        return False
    others = [node.arguments.get(name) for name in PACKED.get(node.operator, ("params",))]
    parts = [part for other in others for part in (other if type(other) is tuple else (other,))]
    if any(part is not None and _constant(graph, part) is None for part in parts):
        return False
    if node.operator not in CONVOLUTIONS:
        return True
    groups = node.arguments.get("groups", 1)
    if type(groups) is not int or groups < 1 or weight.shape[0] % groups:
        return False
    inputs = weight.shape[0] // groups if node.operator in TRANSPOSED else weight.shape[1]
    return groups == 1 or inputs > 1


def _constant(graph: Graph, argument: Any) -> Any:
    return graph.constants.get(argument.name) if isinstance(argument, Value) else None


# ---------------------------------------------------------------- new constants in place of old ones


class _Form(NamedTuple):
    """How an operator takes a constant: of transposed convolutions the groups, else 0; and its storage."""

    groups: int
    storage: str


def _changed(
    graph: Graph,
    wanted: Callable[[Node, Weight, Any], str],
    widen: Callable[[NarrowWeight], Array],
) -> Graph:
    """Return the graph with weights in the wanted storages. Narrow ones become wide by `widen`."""
    constants = dict(graph.constants)
    taken = _all_names(graph)
    made: dict[tuple[str, _Form], str] = {}

    def of(node: Node, name: str, storage: str) -> Value:
        now = graph.constants[name]
        groups = node.arguments.get("groups", 1) if node.operator in TRANSPOSED else 0
        key = name, _Form(groups, storage)
        if key not in made:
            rows = widen(now) if isinstance(now, NarrowWeight) else _turned(now, groups)
            is_wide = storage not in STORAGES
            made[key] = _new_name(f"{name}.{storage}", taken)
            constants[made[key]] = (
                _turned(rows, groups) if is_wide else narrowed("Program", name, rows, storage)
            )
        return Value(made[key])

    def changed(node: Node) -> Node:
        given = node
        for weight in weights_of(given):
            argument = weight.of(given)
            now = _constant(graph, argument)
            if now is None:
                continue
            storage = wanted(given, weight, now)
            if storage != (now.storage if isinstance(now, NarrowWeight) else "float32"):
                node = _with(node, weight, of(node, argument.name, storage))
        if node.body is not None:
            node = node._replace(body=node.body._replace(nodes=tuple(map(changed, node.body.nodes))))
        return node

    nodes = tuple(map(changed, graph.nodes))
    return _cleaned(graph._replace(nodes=nodes, constants=constants), graph, made)


def _with(node: Node, weight: Weight, value: Value) -> Node:
    """The node with another weight."""
    whole: Any = value
    if weight.place is not None:
        params = node.arguments[weight.argument]
        whole = (*params[: weight.place], value, *params[weight.place + 1 :])
    return node._replace(arguments={**node.arguments, weight.argument: whole})


def _cleaned(graph: Graph, before: Graph, made: Mapping[tuple[str, _Form], str]) -> Graph:
    """Return the graph without constants that are not used any more.

    A new constant has the name of the old one, if that is used no more and has no other successor.
    """
    used = _used(graph)
    successors: dict[str, list[str]] = {}
    for (old, _), new in made.items():
        successors.setdefault(old, []).append(new)
    names = {new[0]: old for old, new in successors.items() if old not in used and len(new) == 1}

    def renamed(part: Any) -> Any:
        return Value(names[part.name]) if isinstance(part, Value) and part.name in names else part

    def of(node: Node) -> Node:
        arguments = {name: map_argument(argument, renamed) for name, argument in node.arguments.items()}
        body = None if node.body is None else node.body._replace(nodes=tuple(map(of, node.body.nodes)))
        return node._replace(arguments=arguments, body=body)

    unused = _used(before) - used
    constants = {
        names.get(name, name): array for name, array in graph.constants.items() if name not in unused
    }
    return graph._replace(nodes=tuple(map(of, graph.nodes)), constants=constants)


def _used(graph: Graph) -> set[str]:
    """The names of all values that something reads."""
    used = {*graph.outputs, *(name for link in graph.states for name in (link.output, link.initial) if name)}
    for node in all_nodes(graph.nodes):
        used.update(node.values())
        if node.body is not None:
            used.update((*node.body.collected, *node.body.last, *(link[2] for link in node.body.carried)))
    return used


def _all_names(graph: Graph) -> set[str]:
    """The names of all values of a graph."""
    names = {*graph.constants, *(form.name for form in graph.inputs)}
    for node in all_nodes(graph.nodes):
        names.update(name for name in node.outputs if name is not None)
        if node.body is not None:
            names.update(link[0] for link in node.body.carried)
    return names


def _new_name(name: str, taken: set[str]) -> str:
    count, new = 1, name
    while new in taken:
        count += 1
        new = f"{name}.{count}"
    taken.add(new)
    return new


def _turned(weight: Array, groups: int) -> Array:
    """A weight (in, out / groups, taps...) of a transposed convolution as (out, in / groups, taps...), or the
    reverse: the first two axes of each group swapped. Without groups, the weight itself."""
    if not groups:
        return weight
    turned = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(turned).reshape(-1, *turned.shape[2:])


# ---------------------------------------------------------------- products by a matrix


def as_linear(graph: Graph, has_products: bool = True) -> Graph:
    """Return the graph with each product by a constant matrix as a "linear".

    Weights that follow from constants alone, such as a third of those of an attention, become constants.
    Without `has_products` only those of recurrent layers do.
    """
    return _Linear(graph, has_products).graph


class _Linear:
    """Writes the graph of `as_linear`."""

    def __init__(self, graph: Graph, has_products: bool) -> None:
        self._before, self._has_products = graph, has_products
        self._known = {node.outputs: node for node in _known(graph)}
        self._names = {*graph.constants, *(name for names in self._known for name in names if name)}
        self._taken = _all_names(graph)
        self._made: dict[tuple[str, bool], str] = {}
        self._constants = dict(graph.constants)
        nodes = tuple(new for node in graph.nodes for new in self._changed(node))
        self.graph = _without_idle(graph._replace(nodes=nodes, constants=self._constants), self._names)

    def _changed(self, node: Node) -> Iterator[Node]:
        if node.body is not None:
            inner = tuple(new for old in node.body.nodes for new in self._changed(old))
            yield node._replace(body=node.body._replace(nodes=inner))
        elif all(name in self._names for name in node.values()):
            yield node
        elif node.operator in PRODUCTS and self._has_products:
            yield from self._product(node)
        else:
            for weight in weights_of(node):
                argument = weight.of(node)
                is_wanted = bool(weight.matrix) or self._has_products
                if is_wanted and _constant(self._before, argument) is None:
                    array = self._array(argument, weight.axes)
                    if array is not None:
                        node = _with(node, weight, self._constant(argument.name, array, False))
            yield node

    def _product(self, node: Node) -> Iterator[Node]:
        left, right = (node.arguments.get(name) for name in PRODUCTS[node.operator])
        weight = self._array(right, 2)
        is_plain = node.arguments.get("beta", 1) == 1 and node.arguments.get("alpha", 1) == 1
        if weight is None or not is_plain or not isinstance(left, Value) or left.name in self._names:
            yield node
            return
        assert isinstance(right, Value)
        rows = self._constant(right.name, weight.T, True)
        given = {"input": left, "weight": rows, "bias": None}
        summand = node.arguments.get("self") if node.operator == "addmm" else None
        bias = self._array(summand, 1)
        if summand is None or (bias is not None and bias.shape == weight.shape[1:]):
            yield node._replace(operator="linear", arguments={**given, "bias": summand})
            return
        name = _new_name(f"{node.outputs[0]}.product", self._taken)
        yield Node("linear", given, (name,), node.where)
        yield Node("add", {"self": Value(name), "other": summand}, node.outputs, node.where)

    def _array(self, argument: Any, axes: int) -> Any:
        """A constant array of float32 with this many axes. None: the argument is another one."""
        if not isinstance(argument, Value) or argument.name not in self._names:
            return None
        array = self._before.constants.get(argument.name)
        if array is None:
            known = self._before._replace(nodes=tuple(self._known.values()))
            (array,) = evaluate(known, {}, [argument.name])
        is_fit = not isinstance(array, NarrowWeight) and array.ndim == axes and array.dtype == np.float32
        return array if is_fit else None

    def _constant(self, source: str, array: Array, is_turned: bool) -> Value:
        """The new constant that follows from a value."""
        key = source, is_turned
        if key not in self._made:
            array = np.ascontiguousarray(array)
            same = next((name for name, other in self._constants.items() if _are_same(other, array)), None)
            self._made[key] = same or _new_name(f"{source}.weight", self._taken)
            self._constants.setdefault(self._made[key], array)
        return Value(self._made[key])


def _are_same(a: Any, b: Array) -> bool:
    """Whether a constant has the bits of an array of float32."""
    if isinstance(a, NarrowWeight) or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return np.array_equal(np.ascontiguousarray(a).view(np.uint32), b.view(np.uint32))


def _known(graph: Graph) -> Iterator[Node]:
    """Yield the nodes whose results follow from constants alone, in order, those in loops too."""
    known = set(graph.constants)
    for node in all_nodes(graph.nodes):
        if node.body is not None or not all(name in known for name in node.values()):
            continue
        if not any(_counts_steps(argument) for argument in node.arguments.values()):
            known.update(name for name in node.outputs if name is not None)
            yield node


def _counts_steps(argument: Any) -> bool:
    """Whether an argument depends on the step of a loop."""
    if isinstance(argument, Size):
        return argument.operator == "step" or any(map(_counts_steps, argument[1:]))
    return (
        isinstance(argument, tuple) and not isinstance(argument, Value) and any(map(_counts_steps, argument))
    )


def _without_idle(graph: Graph, known: Collection[str]) -> Graph:
    """Return the graph without what nothing reads any more of constants and what follows from them."""
    while True:
        used = _used(graph)

        def kept(node: Node, used: Collection[str] = used) -> bool:
            return any(name is not None and (name not in known or name in used) for name in node.outputs)

        nodes = tuple(_with_body(node, kept) for node in graph.nodes if kept(node))
        constants = {name: array for name, array in graph.constants.items() if name in used}
        count = sum(1 for _ in all_nodes(graph.nodes)), len(graph.constants)
        graph = graph._replace(nodes=nodes, constants=constants)
        if count == (sum(1 for _ in all_nodes(nodes)), len(constants)):
            return graph


def _with_body(node: Node, kept: Callable[[Node], bool]) -> Node:
    """The node with those nodes of its body that are kept."""
    if node.body is None:
        return node
    inner = tuple(_with_body(own, kept) for own in node.body.nodes if kept(own))
    return node._replace(body=node.body._replace(nodes=inner))
