"""What is done to a graph once, before any plan: the same results from fewer nodes.

fold_batch_norms    a batch norm after a convolution or projection becomes part of its weights
drop_idle           nodes that give what they take
at_precision        the same graph in float32 or float64
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.graph import Graph, Node, Value, map_argument
from fastrnn.narrow import NarrowWeight

# Products, with the axis of the weight that is that of the outputs.
PRODUCTS = {"linear": 0, "conv1d": 0, "conv2d": 0, "conv_transpose1d": 1, "conv_transpose2d": 1}
IDLE = {"dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias", "lift_fresh"}

# Operators that make real numbers of type float32 if no other is named; and those that do so if one of
# these arguments is no whole number.
WINDOWS = {"hann_window", "hamming_window", "blackman_window", "bartlett_window"}
CREATIONS = {"zeros", "ones", "empty", "eye", "linspace", *WINDOWS}
CREATIONS_OF = {"full": ("fill_value",), "arange": ("start", "end", "step")}


def prepared(graph: Graph) -> Graph:
    """Return the graph as plans are made of it."""
    return fold_batch_norms(drop_idle(graph))


def uses(graph: Graph) -> dict[str, int]:
    """How often each value is read."""
    counts: dict[str, int] = {}
    for name in (*graph.outputs, *(link.output for link in graph.states)):
        counts[name] = counts.get(name, 0) + 1
    for node in graph.nodes:
        for name in node.values():
            counts[name] = counts.get(name, 0) + 1
    return counts


def drop_idle(graph: Graph) -> Graph:
    """Return the graph without nodes that give what they take."""
    same: dict[str, str] = {}
    nodes = []
    kept = {*graph.outputs, *(link.output for link in graph.states)}
    for node in graph.nodes:
        node = _renamed(node, same)
        first = next(iter(node.arguments.values()), None)
        if (
            node.operator in IDLE
            and isinstance(first, Value)
            and not node.arguments.get("train", False)
            and node.outputs[0] not in kept
        ):
            same[node.outputs[0]] = first.name  # type: ignore[index]
        else:
            nodes.append(node)
    return graph._replace(nodes=tuple(nodes))


def _renamed(node: Node, same: Mapping[str, str]) -> Node:
    def change(part: Any) -> Any:
        if isinstance(part, Value) and part.name in same:
            return Value(same[part.name])
        return part

    if not same:
        return node
    arguments = {name: map_argument(argument, change) for name, argument in node.arguments.items()}
    body = node.body
    if body is not None:
        body = body._replace(
            nodes=tuple(_renamed(inner, same) for inner in body.nodes),
            carried=tuple((inner, same.get(before, before), after) for inner, before, after in body.carried),
        )
    return node._replace(arguments=arguments, body=body)


def fold_batch_norms(graph: Graph) -> Graph:
    """Return the graph with batch norms in the weights of the products before them."""
    counts = uses(graph)
    made = {node.outputs[0]: index for index, node in enumerate(graph.nodes)}
    nodes: list[Node | None] = list(graph.nodes)
    constants = dict(graph.constants)
    for index, node in enumerate(graph.nodes):
        if node.operator != "batch_norm" or node.arguments.get("training", False):
            continue
        taken = node.arguments.get("input")
        if not isinstance(taken, Value) or taken.name not in made:
            continue
        source = made[taken.name]
        product = nodes[source]
        if product is None or product.operator not in PRODUCTS or counts[taken.name] != 1:
            continue
        names = ("weight", "bias", "running_mean", "running_var")
        arrays = [_constant(graph, node.arguments.get(name)) for name in names]
        weight = _constant(graph, product.arguments.get("weight"))
        bias = product.arguments.get("bias")
        given = _constant(graph, bias)
        if arrays[2] is None or arrays[3] is None or weight is None or (bias is not None and given is None):
            continue
        if isinstance(weight, NarrowWeight):  # they are rounded already, and would be again
            continue
        if not _fits(product, weight, given, arrays):
            continue
        folded = _fold(product, weight, given, arrays, float(node.arguments.get("eps", 1e-5)))
        name = f"{node.outputs[0]}.folded"
        constants[f"{name}.weight"], constants[f"{name}.bias"] = folded
        arguments = dict(product.arguments)
        arguments["weight"], arguments["bias"] = Value(f"{name}.weight"), Value(f"{name}.bias")
        nodes[source] = None
        nodes[index] = product._replace(arguments=arguments, outputs=node.outputs)
    return graph._replace(nodes=tuple(node for node in nodes if node is not None), constants=constants)


def _fits(product: Node, weight: Array, bias: Array | None, norm: list[Array | None]) -> bool:
    """Whether a norm has a number for each output of a product, and only then: a file may say anything."""
    axis, groups = PRODUCTS[product.operator], product.arguments.get("groups", 1)
    if type(groups) is not int or groups < 1 or weight.ndim < 2 or weight.shape[0] % groups:
        return False
    outputs = (weight.shape[axis] * (groups if axis == 1 else 1),)
    return all(array is None or array.shape == outputs for array in (bias, *norm))


def _constant(graph: Graph, argument: Any) -> Array | None:
    return graph.constants.get(argument.name) if isinstance(argument, Value) else None


@np.errstate(all="ignore")
def _fold(
    product: Node, weight: Array, bias: Array | None, norm: list[Array | None], eps: float
) -> tuple[Array, Array]:
    """The weight and bias of a product with a norm after it, worked out in float64."""
    scale, shift, mean, variance = norm
    assert mean is not None and variance is not None
    factor = 1 / np.sqrt(variance.astype(np.float64) + eps)
    if scale is not None:
        factor = factor * scale
    axis = PRODUCTS[product.operator]
    groups = product.arguments.get("groups", 1)
    wide = weight.astype(np.float64)
    if axis == 1 and groups > 1:
        # (in, out / groups, taps): the outputs of a group belong to its inputs.
        whole = wide.reshape(groups, -1, *wide.shape[1:])
        own = factor.reshape(groups, 1, -1, *[1] * (wide.ndim - 2))
        scaled = (whole * own).reshape(wide.shape)
    else:
        scaled = wide * factor.reshape([-1 if a == axis else 1 for a in range(wide.ndim)])
    offset = -mean * factor if bias is None else (bias - mean.astype(np.float64)) * factor
    if shift is not None:
        offset = offset + shift
    return scaled.astype(weight.dtype), offset.astype(weight.dtype)


def _makes_reals(node: Node) -> bool:
    """Whether a node makes real numbers of no named type, which are float32."""
    if node.arguments.get("dtype") is not None:
        return False
    numbers = CREATIONS_OF.get(node.operator)
    if numbers is not None:
        return any(isinstance(node.arguments.get(name), float) for name in numbers)
    return node.operator in CREATIONS


def at_precision(graph: Graph, precision: str) -> Graph:
    """Return the graph with its real numbers in another type. Narrow weights stay."""
    old = {"float32": "float64", "float64": "float32"}[precision]

    def change(part: Any) -> Any:
        return precision if part == old and isinstance(part, str) else part

    def converted(node: Node) -> Node:
        arguments = {name: map_argument(argument, change) for name, argument in node.arguments.items()}
        if _makes_reals(node):
            arguments["dtype"] = change("float32")
        body = node.body
        if body is not None:
            body = body._replace(nodes=tuple(map(converted, body.nodes)))
        return node._replace(arguments=arguments, body=body)

    return graph._replace(
        inputs=tuple(form._replace(dtype=change(form.dtype)) for form in graph.inputs),
        nodes=tuple(map(converted, graph.nodes)),
        constants={
            name: array if isinstance(array, NarrowWeight) or array.dtype != old else array.astype(precision)
            for name, array in graph.constants.items()
        },
    )


def wide_precision(graph: Graph) -> str:
    """Return the type of a graph's real numbers. That of narrow weights is float32."""
    dtypes = {form.dtype for form in graph.inputs}
    dtypes |= {
        "float32" if isinstance(array, NarrowWeight) else array.dtype.name
        for array in graph.constants.values()
    }
    return "float64" if "float64" in dtypes and "float32" not in dtypes else "float32"
