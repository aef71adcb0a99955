"""Packed sequences as padded ones with lengths, which is how a program has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastrnn.graph import Node, Size, Value
from fastrnn.importers.torch_capture.recorder import Refused

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
# Operators of packed data that leave its rows apart.
ROWWISE = {
    "dropout",
    "relu",
    "tanh",
    "sigmoid",
    "linear",
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "gelu",
    "silu",
    "elu",
    "leaky_relu",
    "softplus",
    "layer_norm",
    "to",
    "clone",
    "contiguous",
    "hardtanh",
    "exp",
    "abs",
    "clamp",
    "prelu",
}


class _Packed:
    """Padded data in the place of a packed value."""

    def __init__(self, padded: str, lengths: Any, batch_first: bool) -> None:
        self.padded, self.lengths, self.batch_first = padded, lengths, batch_first


def without_packing(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with padded data and lengths in the place of packed data."""
    packed: dict[str, _Packed] = {}
    sizes: set[str] = set()
    found: list[Node] = []
    for node in nodes:
        arguments = node.arguments
        if node.operator == "_pack_padded_sequence":
            data, batch_sizes = node.outputs
            batch_first = bool(arguments.get("batch_first", False))
            packed[data] = _Packed(arguments["input"].name, arguments["lengths"], batch_first)  # type: ignore[index]
            sizes.add(batch_sizes)  # type: ignore[arg-type]
        elif node.operator in RECURRENT and "batch_sizes" in arguments:
            source = packed[arguments["data"].name]
            rest = {name: value for name, value in arguments.items() if name not in ("data", "batch_sizes")}
            made = {
                "input": Value(source.padded),
                **rest,
                "batch_first": source.batch_first,
                "lengths": source.lengths,
            }
            found.append(Node(node.operator, made, node.outputs, node.where))
            packed[node.outputs[0]] = _Packed(node.outputs[0], source.lengths, source.batch_first)  # type: ignore[index,arg-type]
        elif node.operator == "_pad_packed_sequence":
            found += _padded(node, packed[arguments["data"].name])
        elif any(name in packed for name in node.values()):
            if node.operator not in ROWWISE or node.outputs[0] is None:
                raise Refused(f"{node.operator} of a packed sequence", node.where)
            (name,) = {name for name in node.values() if name in packed}
            source = packed[name]
            changed = {
                key: Value(packed[value.name].padded)
                if isinstance(value, Value) and value.name in packed
                else value
                for key, value in arguments.items()
            }
            found.append(node._replace(arguments=changed))
            packed[node.outputs[0]] = _Packed(node.outputs[0], source.lengths, source.batch_first)
        elif any(name in sizes for name in node.values()):
            if node.operator != "select":
                raise Refused(f"{node.operator} of the batch sizes of a packed sequence", node.where)
        else:
            found.append(node)
    return found


def _padded(node: Node, source: _Packed) -> list[Node]:
    """Packed data as padded data, up to the longest row or a total length."""
    batch_first = bool(node.arguments.get("batch_first", False))
    total = node.arguments.get("total_length", 0)
    output, lengths = node.outputs
    steps = []
    name = source.padded
    if batch_first != source.batch_first:
        steps.append(
            Node("transpose", {"self": Value(name), "dim0": 0, "dim1": 1}, (f"{output}.turned",), node.where)
        )
        name = f"{output}.turned"
    arguments = {
        "self": Value(name),
        "lengths": source.lengths,
        "batch_first": batch_first,
        "padding_value": float(node.arguments.get("padding_value", 0.0)),
        "total_length": total
        if isinstance(total, Size) or total > 0
        else Size("largest", source.lengths.name),
    }
    steps.append(Node("pad_steps", arguments, (output,), node.where))
    if lengths is not None:
        steps.append(Node("clone", {"self": source.lengths}, (lengths,), node.where))
    return steps
