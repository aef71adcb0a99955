"""Graphs: what a program computes, as data that can be saved. Never how it is run.

A graph is a list of nodes over named values, in the order in which they run. A node's operator has ATen's
name, and its arguments have the names of ATen's schema. `reference.OPERATORS` defines what each computes.

    Value           an argument that is an array, by its name
    Size            an argument that depends on the sizes of values
    Node, Graph     what runs; inputs, outputs, constants and states by name
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from fastrnn.errors import FormatError, brief, message

# What a graph's values may hold.
DTYPES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128")

# How deep arguments and sizes of a file may be nested, and the bits of a power.
MOST_LEVELS = 64
MOST_BITS = 256


class Value(NamedTuple):
    """An argument that is an array."""

    name: str


class Size(NamedTuple):
    """A number that depends on the sizes of values.

    Attributes
    ----------
    operator : str
        "dim": the size of axis ``right`` of the value ``left``. "largest": the largest number in the value
        ``left``. "step": the number of the step of the innermost loop, from 0. Otherwise one of
        `ARITHMETIC`, of two numbers or sizes.
    """

    operator: str
    left: Any = None
    right: Any = None

    def evaluate(self, read: Callable[[Size], Any]) -> Any:
        """Return the number. ``read`` gives that of a "dim", a "largest" or a "step"."""
        if self.operator not in ARITHMETIC:
            return read(self)
        left, right = (
            part.evaluate(read) if isinstance(part, Size) else part for part in (self.left, self.right)
        )
        try:
            return ARITHMETIC[self.operator](left, right)
        except ArithmeticError as error:
            raise ValueError(message("program", "sizes that can be computed", f"{self}: {error}")) from error

    def values(self) -> Iterator[str]:
        """Yield the names of the values whose sizes it depends on."""
        if self.operator in ("dim", "largest"):
            yield self.left
            return
        for part in (self.left, self.right):
            if isinstance(part, Size):
                yield from part.values()

    def __str__(self) -> str:
        if self.operator == "dim":
            return f"{self.left}.shape[{self.right}]"
        if self.operator == "step":
            return "step"
        if self.operator == "largest":
            return f"max({self.left})"
        if self.operator in ("max", "min"):
            return f"{self.operator}({self.left}, {self.right})"
        return f"({self.left} {self.operator} {self.right})"


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b * a.bit_length() > MOST_BITS:
        raise ValueError(message("program", "sizes that fit in memory", f"{a} ** {b}"))
    return a**b


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "/": lambda a, b: a / b,
    "**": _power,
    "max": max,
    "min": min,
}

# A Value, a Size, a number, a truth value, a text, None, or a tuple of these.
Argument: TypeAlias = Any


class Input(NamedTuple):
    """An array that a program takes. An entry of its shape is a number or the name of a size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class StateLink(NamedTuple):
    """An array that is carried from call to call.

    Attributes
    ----------
    input, output : str
        The input that takes it, and the value that is its next input.
    initial : str or None
        The constant that it begins as. None: zeros. If the input has fixed sizes, callers do not give it. If
        it has named ones, they may leave it out. The constant has 1 in place of each named size then.
    """

    input: str
    output: str
    initial: str | None = None


class Node(NamedTuple):
    """One use of an operator.

    Attributes
    ----------
    operator : str
        ATen's name, without the overload. "loop" runs ``body`` again and again.
    arguments : mapping of str to argument
        By the names of ATen's schema, in its order. What is left out has the schema's default.
    outputs : tuple of str or None
        The names of its results. None: nobody uses it.
    where : str
        The line of the module that it comes from.
    body : Loop or None
    """

    operator: str
    arguments: Mapping[str, Argument]
    outputs: tuple[str | None, ...]
    where: str = ""
    body: Loop | None = None

    def values(self) -> Iterator[str]:
        """Yield the names of all values that it depends on."""
        for argument in self.arguments.values():
            yield from values_of(argument)
        if self.body is not None:
            yield from self.body.values()


class Loop(NamedTuple):
    """What a "loop" node repeats.

    Its node gives what every step collected, stacked along a new first axis, and then the values of the last
    step.

    Attributes
    ----------
    nodes : tuple of Node
    count : int or Size
        How many steps there are.
    carried : tuple of (str, str, str)
        The name within the body, the value before the first step, and the value of the body that is its
        next one.
    collected, last : tuple of str
        Values of the body that the node gives: those of all steps, and those of the last one.
    """

    nodes: tuple[Node, ...]
    count: Any
    carried: tuple[tuple[str, str, str], ...] = ()
    collected: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    def values(self) -> Iterator[str]:
        """Yield the names of the values outside that it depends on."""
        own = {name for name, _, _ in self.carried}
        own |= {name for node in self.nodes for name in node.outputs if name is not None}
        yield from values_of(self.count)
        yield from (before for _, before, _ in self.carried)
        for node in self.nodes:
            yield from (name for name in node.values() if name not in own)


class Graph(NamedTuple):
    """What a program computes.

    Attributes
    ----------
    inputs : tuple of Input
    nodes : tuple of Node
    outputs : tuple of str
    constants : mapping of str to ndarray or NarrowWeight
        Narrow ones are weights of products, as `weights_of` finds them, and have output rows first. So that
        of a transposed convolution has shape (out, in / groups, taps...).
    states : tuple of StateLink
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Any]
    states: tuple[StateLink, ...] = ()

    @property
    def hidden(self) -> dict[str, str]:
        """The states that callers never give, and the constants that they begin as."""
        return self._begun(False)

    @property
    def optional(self) -> dict[str, str]:
        """The states that callers may leave out, and the constants that they begin as."""
        return self._begun(True)

    def _begun(self, is_named: bool) -> dict[str, str]:
        """The states with a constant, and with named sizes or fixed ones alone."""
        named = {form.name for form in self.inputs if any(isinstance(size, str) for size in form.shape)}
        return {
            link.input: link.initial
            for link in self.states
            if link.initial is not None and (link.input in named) is is_named
        }


class ProgramSpec(NamedTuple):
    """A graph with the arguments and results that callers see.

    Attributes
    ----------
    graph : Graph
    arguments, results : structure
        How the inputs and outputs are nested in what a call takes and returns. An input or output is
        ``{"array": i}``, anything else that is no container ``{"constant": value}``. Containers are
        ``{"tuple": [...]}``, ``{"list": [...]}``, ``{"dict": {...}}`` and ``{"named": [names, [...]]}``.
        ``arguments`` is a tuple of the positional arguments and a dict of the others.
    parameters : tuple of str
        The names of the positional parameters.
    """

    graph: Graph
    arguments: Any
    results: Any
    parameters: tuple[str, ...]


def all_nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield nodes, and after each loop those of its body."""
    for node in nodes:
        yield node
        if node.body is not None:
            yield from all_nodes(node.body.nodes)


class Weight(NamedTuple):
    """An argument that is the weight of a product, or a table of an embedding.

    Attributes
    ----------
    argument : str
    place : int or None
        Which part it is, if the argument is a tuple.
    matrix : str
        Of a recurrent layer "input", "recurrent" or "projection". Else "".
    axes : int
        How many it has.
    """

    argument: str
    place: int | None
    matrix: str
    axes: int

    def of(self, node: Node) -> Argument:
        """Return the argument."""
        whole = node.arguments.get(self.argument)
        return whole if self.place is None or whole is None else whole[self.place]


LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_WEIGHTS = {
    "embedding": (Weight("weight", None, "", 2),),
    "linear": (Weight("weight", None, "", 2),),
    "conv1d": (Weight("weight", None, "", 3),),
    "conv2d": (Weight("weight", None, "", 4),),
    "conv_transpose1d": (Weight("weight", None, "", 3),),
    "conv_transpose2d": (Weight("weight", None, "", 4),),
    **dict.fromkeys(
        (f"{kind}_cell" for kind in LAYERS),
        (Weight("w_ih", None, "input", 2), Weight("w_hh", None, "recurrent", 2)),
    ),
}


def weights_of(node: Node) -> tuple[Weight, ...]:
    """Return the arguments of a node that may be narrow weights. Those of a file may be of any kind."""
    if node.operator not in LAYERS:
        return _WEIGHTS.get(node.operator, ())
    params, layers = node.arguments.get("params"), node.arguments.get("num_layers")
    if not isinstance(params, tuple) or type(layers) is not int:
        return ()
    cells = layers * (2 if node.arguments.get("bidirectional") else 1)
    each = len(params) // max(cells, 1)
    least = 4 if node.arguments.get("has_biases") else 2
    if cells < 1 or len(params) != each * cells or each not in (least, least + 1):
        return ()
    matrices = [(0, "input"), (1, "recurrent"), *([(each - 1, "projection")] if each > least else [])]
    return tuple(
        Weight("params", first + place, matrix, 2)
        for first in range(0, len(params), each)
        for place, matrix in matrices
    )


def live(nodes: Sequence[Node], wanted: Iterable[str]) -> list[Node]:
    """Return the nodes that the wanted values depend on."""
    needed = set(wanted)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.values())
    return kept[::-1]


def values_of(argument: Argument) -> Iterator[str]:
    """Yield the names of the values that an argument depends on."""
    if isinstance(argument, Value):
        yield argument.name
    elif isinstance(argument, Size):
        yield from argument.values()
    elif isinstance(argument, tuple):
        for part in argument:
            yield from values_of(part)


def map_argument(argument: Argument, change: Callable[[Any], Any]) -> Argument:
    """Return an argument with ``change`` applied to all that is no tuple."""
    if isinstance(argument, tuple) and not isinstance(argument, (Value, Size)):
        return tuple(map_argument(part, change) for part in argument)
    return change(argument)


# ---------------------------------------------------------------- as JSON


def encode(argument: Argument) -> Any:
    """Return an argument as JSON holds it."""
    if isinstance(argument, Value):
        return {"value": argument.name}
    if isinstance(argument, Size):
        return {"size": _encode_size(argument)}
    if isinstance(argument, tuple):
        return [encode(part) for part in argument]
    if isinstance(argument, complex):
        return {"complex": [repr(argument.real), repr(argument.imag)]}
    if isinstance(argument, float) and not abs(argument) < float("inf"):
        return {"float": repr(argument)}
    return argument


def _encode_size(size: Any) -> Any:
    return [size.operator, *map(_encode_size, size[1:])] if isinstance(size, Size) else size


def decode(encoded: Any, depth: int = 0) -> Argument:
    """Return the argument that `encode` gave.

    Raises
    ------
    FormatError
        It is none.
    """
    if isinstance(encoded, list) and depth < MOST_LEVELS:
        return tuple(decode(part, depth + 1) for part in encoded)
    if encoded is None or isinstance(encoded, (bool, str)) or _is_number(encoded):
        return encoded
    if isinstance(encoded, dict) and len(encoded) == 1:
        ((kind, content),) = encoded.items()
        if kind == "value" and isinstance(content, str):
            return Value(content)
        if kind == "size" and isinstance(content, list):
            return _decode_size(content, depth)
        if kind == "float" and content in ("inf", "-inf", "nan"):
            return float(content)
        if kind == "complex" and isinstance(content, list) and len(content) == 2:
            return complex(*map(_decode_part, content))
    raise FormatError(message("program", "an argument of an operator", brief(encoded)))


def _decode_part(text: Any) -> float:
    try:
        return float(text if isinstance(text, str) else "")
    except ValueError:
        raise FormatError(message("program", "a part of a complex number", brief(text))) from None


def _is_number(encoded: Any) -> bool:
    """Whether it is a number that operators may be given: a whole one of 64 bits, or a finite one."""
    if isinstance(encoded, float):
        return abs(encoded) < float("inf")
    return type(encoded) is int and -(2**63) <= encoded < 2**63


def _decode_size(encoded: Any, depth: int) -> Any:
    if _is_number(encoded):
        return encoded
    if isinstance(encoded, list) and len(encoded) == 3 and depth < MOST_LEVELS:
        operator, left, right = encoded
        if operator == "dim" and isinstance(left, str) and type(right) is int and abs(right) < MOST_LEVELS:
            return Size("dim", left, right)
        if operator == "largest" and isinstance(left, str) and right is None:
            return Size("largest", left)
        if operator == "step" and left is None and right is None:
            return Size("step")
        if isinstance(operator, str) and operator in ARITHMETIC:
            return Size(operator, _decode_size(left, depth + 1), _decode_size(right, depth + 1))
    raise FormatError(message("program", "a size", brief(encoded)))
