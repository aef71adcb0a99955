"""Graphs as JSON holds them, and back. What a file says is checked here, since files come from anyone.

A node is ``[operator, arguments, outputs, where]``, and that of a loop has its body as a fifth part. How an
argument is written is up to `graph.encode`, and how arrays are nested up to `structure`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastrnn.arrays import Array
from fastrnn.errors import FormatError, brief, message, printable
from fastrnn.graph import (
    DTYPES,
    Graph,
    Input,
    Loop,
    Node,
    ProgramSpec,
    Size,
    StateLink,
    decode,
    encode,
    values_of,
)
from fastrnn.structure import check_structure, map_constants

MOST_AXES = 32
MOST_NAME = 1000  # letters
MOST_LOOPS = 4  # one within the other


# ---------------------------------------------------------------- to JSON


def describe_spec(spec: ProgramSpec) -> dict[str, Any]:
    """Return a specification as JSON holds it. Of the constants, only the names that nodes have for them."""
    graph = spec.graph
    return {
        "inputs": [[form.name, form.dtype, list(form.shape)] for form in graph.inputs],
        "nodes": [_describe_node(node) for node in graph.nodes],
        "outputs": list(graph.outputs),
        "states": [list(link) for link in graph.states],
        "arguments": map_constants(spec.arguments, encode),
        "results": map_constants(spec.results, encode),
        "parameters": list(spec.parameters),
    }


def _describe_node(node: Node) -> list[Any]:
    arguments = {name: encode(argument) for name, argument in node.arguments.items()}
    described: list[Any] = [node.operator, arguments, list(node.outputs), node.where]
    if node.body is not None:
        body = node.body
        described.append(
            {
                "nodes": [_describe_node(inner) for inner in body.nodes],
                "count": encode(body.count),
                "carried": [list(link) for link in body.carried],
                "collected": list(body.collected),
                "last": list(body.last),
            }
        )
    return described


# ---------------------------------------------------------------- from JSON


def read_spec(
    description: Mapping[str, Any], constants: Mapping[str, Array], operators: Collection[str]
) -> ProgramSpec:
    """Return the specification that `describe_spec` described.

    Every name is defined before it is used, and once. Whether the arguments of an operator fit is found out
    when a plan is made.

    Parameters
    ----------
    description : mapping
    constants : mapping of str to ndarray
    operators : collection of str
        Those that there are.

    Raises
    ------
    FormatError
        It describes no specification.
    KeyError, TypeError, ValueError
        A part is missing or of another kind.
    """
    inputs = tuple(_read_input(entry) for entry in description["inputs"])
    defined: set[str] = set()
    for name in (*(form.name for form in inputs), *constants):
        _define(name, defined)
    nodes = _read_nodes(description["nodes"], defined, operators, 0)
    outputs = tuple(_used(name, defined) for name in description["outputs"])
    states = tuple(_read_link(entry, inputs, defined, constants) for entry in description["states"])
    if len({link.input for link in states}) < len(states):
        raise FormatError(message("program", "one state for each of its inputs", "two"))
    graph = Graph(inputs, nodes, outputs, dict(constants), states)
    hidden = graph.hidden
    count = len(inputs) - len(hidden)
    if any(form.name in hidden for form in inputs[:count]):
        raise FormatError(message("program", "hidden states after all other inputs", "another order"))
    parameters = tuple(_name(name) for name in description["parameters"])
    arguments, results = (_read_structure(description[name]) for name in ("arguments", "results"))
    check_structure(arguments, count)
    check_structure(results, len(outputs))
    positional, named = arguments["tuple"]
    if len(positional["tuple"]) != len(parameters) or not isinstance(named["dict"], dict):
        raise FormatError(message("program", "a name for each argument", f"{len(parameters)}"))
    return ProgramSpec(graph, arguments, results, parameters)


def _read_structure(encoded: Any) -> Any:
    return map_constants(encoded, decode)


def _read_input(entry: Any) -> Input:
    name, dtype, shape = entry
    is_shape = isinstance(shape, list) and len(shape) <= MOST_AXES
    if not is_shape or not all(_is_size(size) for size in shape) or dtype not in DTYPES:
        raise FormatError(message("program", "the type and shape of an input", brief(f"{dtype} {shape}")))
    return Input(_name(name), dtype, tuple(shape))


def _is_size(size: Any) -> bool:
    return 0 <= size < 2**48 if type(size) is int else isinstance(size, str) and _name(size) == size


def _read_link(
    entry: Any, inputs: tuple[Input, ...], defined: Collection[str], constants: Mapping[str, Array]
) -> StateLink:
    name, output, initial = entry
    form = next((form for form in inputs if form.name == name), None)
    if form is None:
        raise FormatError(message("program", "a state that is an input", brief(name)))
    if initial is not None:
        array = constants.get(_name(initial))
        shape = tuple(1 if isinstance(size, str) else size for size in form.shape)
        if array is None or array.dtype.name != form.dtype or array.shape != shape:
            raise FormatError(message("program", f"a first state of {name} that fits", brief(initial)))
    return StateLink(name, _used(output, defined), initial)


def _read_nodes(entries: Any, defined: set[str], operators: Collection[str], loops: int) -> tuple[Node, ...]:
    """Read nodes in order. Their results are added to the names that are defined."""
    nodes = []
    if not isinstance(entries, list):
        raise FormatError(message("program", "a list of nodes", brief(entries)))
    for entry in entries:
        operator, encoded, outputs, where, *rest = entry
        arguments = {_name(name): decode(argument) for name, argument in encoded.items()}
        for argument in arguments.values():
            _check_values(argument, defined)
        is_loop = operator == "loop" and len(rest) == 1 and loops < MOST_LOOPS
        if not is_loop and (rest or not isinstance(operator, str) or operator not in operators):
            raise FormatError(message("program", "operators that fastrnn has", brief(operator)))
        body = _read_loop(rest[0], defined, operators, loops + 1) if is_loop else None
        if not isinstance(outputs, list) or not outputs:
            raise FormatError(message("program", f"names of what {operator} gives", brief(outputs)))
        if body is not None and len(outputs) != len(body.collected) + len(body.last):
            raise FormatError(message("program", "a name for each result of a loop", f"{len(outputs)}"))
        for name in outputs:
            if name is not None:
                _define(name, defined)
        if not isinstance(where, str):
            raise FormatError(message("program", "a line of a module", brief(where)))
        nodes.append(Node(operator, arguments, tuple(outputs), printable(where[:MOST_NAME]), body))
    return tuple(nodes)


def _read_loop(entry: Any, outside: set[str], operators: Collection[str], loops: int) -> Loop:
    inside = set(outside)
    count = decode(entry["count"])
    if not isinstance(count, (int, Size)):
        raise FormatError(message("program", "a number of steps", brief(count)))
    _check_values(count, outside)
    links = []
    for name, before, after in entry["carried"]:
        links.append((_define(name, inside), _used(before, outside), _name(after)))
    nodes = _read_nodes(entry["nodes"], inside, operators, loops)
    carried = tuple((name, before, _used(after, inside)) for name, before, after in links)
    collected, last = (tuple(_used(name, inside) for name in entry[part]) for part in ("collected", "last"))
    return Loop(nodes, count, carried, collected, last)


def _check_values(argument: Any, defined: Collection[str]) -> None:
    for name in values_of(argument):
        _used(name, defined)


def _name(name: Any) -> str:
    """A name that a message may show."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > MOST_NAME:
        raise FormatError(message("program", "a name", printable(brief(name))))
    return name


def _define(name: Any, defined: set[str]) -> str:
    if _name(name) in defined:
        raise FormatError(message("program", "one value of each name", f"{brief(name)} twice"))
    defined.add(name)
    return name  # type: ignore[no-any-return]


def _used(name: Any, defined: Collection[str]) -> str:
    if _name(name) not in defined:
        raise FormatError(message("program", "names of values that are there", brief(name)))
    return name  # type: ignore[no-any-return]
