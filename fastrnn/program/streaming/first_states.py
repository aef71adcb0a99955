"""A program whose states may be left out, as streams run it: from their first values, and without them.

What is carried from chunk to chunk is then found by following time, as in any program without declared
states, and what needs the whole sequence is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastrnn.errors import message
from fastrnn.graph import Graph, Input, Node, Size, Value
from fastrnn.program.streaming.sessions import without

if TYPE_CHECKING:
    from fastrnn.program.program import Program


def from_first_states(program: Program) -> Program:
    """Return the program without its states, all of which may be left out.

    They are neither arguments nor results. Packed weights are those of the program.
    """
    from fastrnn.program.program import Program

    graph, spec = program.graph, program.spec
    firsts = graph.optional
    inputs = tuple(form for form in graph.inputs if form.name not in firsts)
    nodes = [_first(form, firsts[form.name], inputs) for form in graph.inputs if form.name in firsts]
    states = {link.output for link in graph.states}
    kept = [index for index, name in enumerate(graph.outputs) if name not in states]
    results = without(spec.results, {index: number for number, index in enumerate(kept)})
    outputs = tuple(graph.outputs[index] for index in kept)
    positional, named = spec.arguments["tuple"]
    numbers = {program.inputs.index(form): number for number, form in enumerate(inputs)}
    parts = {
        name: part
        for name, structure in zip(spec.parameters, positional["tuple"], strict=True)
        if structure != {"constant": None} and (part := without(structure, numbers)) is not None
    }
    arguments = {"tuple": [{"tuple": list(parts.values())}, without(named, numbers) or {"dict": {}}]}
    whole = Graph(inputs, (*nodes, *graph.nodes), outputs, graph.constants)
    made = Program(
        spec._replace(
            graph=whole,
            arguments=arguments,
            results={"tuple": []} if results is None else results,
            parameters=tuple(parts),
        ),
        threads=program.threads,
        backend=program.backend,
    )
    made._tools = program._tools
    return made


def _first(form: Input, initial: str, inputs: tuple[Input, ...]) -> Node:
    """The node that gives a state its first value, for as many rows as there are."""
    sizes: dict[str, Any] = {
        size: Size("dim", other.name, axis)
        for other in inputs
        for axis, size in enumerate(other.shape)
        if isinstance(size, str)
    }
    missing = [size for size in form.shape if isinstance(size, str) and size not in sizes]
    if missing:
        raise ValueError(message("stream", f"an array that says what {missing[0]} is", "none"))
    size = tuple(sizes[size] if isinstance(size, str) else size for size in form.shape)
    return Node("expand", {"self": Value(initial), "size": size}, (form.name,), form.name)
