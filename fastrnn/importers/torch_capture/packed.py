"""Packed sequences as padded ones with lengths, which is how a program has them.

Operators of packed data, (steps of all rows, ...), run on padded data with its first two axes joined. What
they compute at the padding is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastrnn.graph import Node, Size, Value, map_argument
from fastrnn.importers.torch_capture.recorder import Refused

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
# Operators that compute each element, or each row of a matrix, apart from the others.
ELEMENTWISE = {
    "relu",
    "tanh",
    "sigmoid",
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "neg",
    "gelu",
    "silu",
    "elu",
    "selu",
    "leaky_relu",
    "softplus",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "mish",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "pow",
    "abs",
    "clamp",
    "clamp_min",
    "clamp_max",
    "dropout",
    "native_dropout",
    "to",
    "_to_copy",
    "clone",
    "contiguous",
    "sin",
    "cos",
    "zeros_like",
    "ones_like",
    "where",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "relu6",
    "square",
    "reciprocal",
    "alias",
}
ROWWISE = {"linear", "embedding", "batch_norm", "layer_norm", "prelu", "matmul", "mm", "one_hot"}
# Operators along the axis ``dim``, which must not be the first.
ALONG = {
    "softmax",
    "log_softmax",
    "_softmax",
    "_log_softmax",
    "cat",
    "concat",
    "glu",
    "slice",
    "narrow",
    "select",
    "sum",
    "mean",
    "unsqueeze",
    "squeeze",
    "chunk",
    "split",
    "argmax",
    "max",
    "amax",
    "linalg_vector_norm",
}


class _Packed(NamedTuple):
    """Padded data in the place of a packed value: ``axes`` is a value with its first two axes."""

    padded: str | None
    flat: str | None
    axes: str
    lengths: Any
    batch_first: bool


def without_packing(nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with padded data and lengths in the place of packed data."""
    return _Padding().run(nodes)


class _Padding:
    def __init__(self) -> None:
        self.packed: dict[str, _Packed] = {}
        self.batch_sizes: set[str] = set()
        self.nodes: list[Node] = []

    def run(self, nodes: Sequence[Node]) -> list[Node]:
        for node in nodes:
            if node.operator == "_pack_padded_sequence":
                self.pack(node)
            elif node.operator in RECURRENT and "batch_sizes" in node.arguments:
                self.recurrent(node)
            elif node.operator == "_pad_packed_sequence":
                self.pad(node)
            elif any(name in self.packed for name in node.values()):
                self.rowwise(node)
            elif any(name in self.batch_sizes for name in node.values()):
                self.of_batch_sizes(node)
            else:
                self.nodes.append(node)
        return self.nodes

    def pack(self, node: Node) -> None:
        data, batch_sizes = node.outputs
        source, lengths = node.arguments["input"], node.arguments["lengths"]
        batch_first = bool(node.arguments.get("batch_first", False))
        assert data is not None
        self.packed[data] = _Packed(source.name, None, source.name, lengths, batch_first)
        if batch_sizes is not None:
            self.batch_sizes.add(batch_sizes)

    def recurrent(self, node: Node) -> None:
        source = self.packed[node.arguments["data"].name]
        rest = {key: value for key, value in node.arguments.items() if key not in ("data", "batch_sizes")}
        made = {
            "input": Value(self.padded(node.arguments["data"].name, node.where)),
            **rest,
            "batch_first": source.batch_first,
            "lengths": source.lengths,
        }
        self.nodes.append(node._replace(arguments=made))
        output = node.outputs[0]
        assert output is not None
        self.packed[output] = source._replace(padded=output, flat=None, axes=output)

    def pad(self, node: Node) -> None:
        """Packed data as padded data, up to the longest row or a total length."""
        source = self.packed[node.arguments["data"].name]
        batch_first = bool(node.arguments.get("batch_first", False))
        total = node.arguments.get("total_length", 0)
        output, lengths = node.outputs
        name = self.padded(node.arguments["data"].name, node.where)
        if batch_first != source.batch_first:
            name = self.add(
                "transpose", {"self": Value(name), "dim0": 0, "dim1": 1}, f"{output}.turned", node
            )
        is_given = isinstance(total, Size) or total > 0
        arguments = {
            "self": Value(name),
            "lengths": source.lengths,
            "batch_first": batch_first,
            "padding_value": float(node.arguments.get("padding_value", 0.0)),
            "total_length": total if is_given else Size("largest", source.lengths.name),
        }
        self.add("pad_steps", arguments, str(output), node)
        if lengths is not None:
            self.add("clone", {"self": source.lengths}, lengths, node)

    def rowwise(self, node: Node) -> None:
        operator, arguments = node.operator, node.arguments
        is_apart = operator in ELEMENTWISE or operator in ROWWISE
        if operator in ALONG:
            dim = arguments.get("dim", 0)
            dims = dim if isinstance(dim, tuple) else (dim,)
            is_apart = all(isinstance(d, int) and (d > 0 or d == -1) for d in dims)
        sources = [self.packed[name] for name in node.values() if name in self.packed]
        if not is_apart or any(source.lengths != sources[0].lengths for source in sources):
            raise Refused(f"{operator} of the data of packed sequences", node.where)

        def changed(part: Any) -> Any:
            if isinstance(part, Value) and part.name in self.packed:
                return Value(self.flat(part.name, node.where))
            return part

        made = {key: map_argument(value, changed) for key, value in arguments.items()}
        self.nodes.append(node._replace(arguments=made))
        for output in node.outputs:
            if output is not None:
                self.packed[output] = sources[0]._replace(padded=None, flat=output)

    def of_batch_sizes(self, node: Node) -> None:
        if node.operator in ("to", "_to_copy", "clone", "alias", "detach"):
            self.batch_sizes.update(name for name in node.outputs if name is not None)
        elif node.operator != "select":
            raise Refused(f"{node.operator} of the batch sizes of packed sequences", node.where)

    # ------------------------------------------------------------ forms of packed data

    def flat(self, name: str, where: str) -> str:
        """The name of packed data with its first two axes joined."""
        source = self.packed[name]
        if source.flat is None:
            made = {"self": Value(str(source.padded)), "start_dim": 0, "end_dim": 1}
            flat = self.add("flatten", made, f"{name}.flat", None, where)
            source = self.packed[name] = source._replace(flat=flat)
        return str(source.flat)

    def padded(self, name: str, where: str) -> str:
        """The name of packed data with two axes for steps and rows."""
        source = self.packed[name]
        if source.padded is None:
            sizes = (Size("dim", source.axes, 0), Size("dim", source.axes, 1))
            made = {"self": Value(str(source.flat)), "dim": 0, "sizes": sizes}
            padded = self.add("unflatten", made, f"{name}.padded", None, where)
            source = self.packed[name] = source._replace(padded=padded)
        return str(source.padded)

    def add(self, operator: str, arguments: Any, output: str, node: Node | None, where: str = "") -> str:
        self.nodes.append(Node(operator, arguments, (output,), node.where if node else where))
        return output
