"""Follows one axis, time or the rows of a batch, from the inputs of a graph through all of its operators.

For each operator a rule says where the axis is in its results and what has to be kept from chunk to chunk.
The rules are registered by `follows`, in `rows`, `shapes`, `parts`, `windows` and
`recurrent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from fastrnn.errors import message
from fastrnn.graph import Graph, Node, Size, Value, map_argument
from fastrnn.program.streaming.places import Place
from fastrnn.program.streaming.sizes import Form, number_at

RULES: dict[str, Callable[[Any, Node], Any]] = {}


def follows(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of a `Followed` and a node as the rule of these operators: it gives an action."""

    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


# Operators whose results may have steps where their arguments have none.
MADE_FOR_ALL = """
zeros ones full empty new_zeros new_ones new_full new_empty empty_strided new_empty_strided empty_permuted
expand expand_copy broadcast_to expand_as repeat tile loop
""".split()


JOINS = ("cat", "concat", "concatenate")


class Fixed(NamedTuple):
    """A node that has no steps: it is computed in every chunk that needs it, from the same numbers."""

    node: Node


class SoFar(NamedTuple):
    """A node of values that depend on all steps so far, such as the last state of a recurrent layer."""

    node: Node


class Rows(NamedTuple):
    """A node that computes each step apart from the others.

    Attributes
    ----------
    node : Node
        With numbers for sizes.
    places : mapping of str to Place
        Where each of its inputs that has steps is to have them.
    outputs : tuple of Place or None
    """

    node: Node
    places: Mapping[str, Place]
    outputs: tuple[Place | None, ...]


class Followed:
    """A graph with what is known about one of its sizes.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    graph : Graph
    name : str
        The size that is followed.
    first, second : mapping of str to Form
        All values at two numbers of steps, and at the same other sizes.
    only_rows : bool
        Refuse all operators that do not compute each step apart. Steps are then the rows of a batch.

    Attributes
    ----------
    places : dict of str to Place
        Where the steps of a value are. Values without steps are not there.
    counts : pair of int
        The numbers of steps at which the values' forms are known.
    late : dict of str to int
        How many of a value's last steps are not there before the sequence ends, if it is any.
    is_even : dict of str to bool
        Whether this many are missing at any time: nothing before makes one step of several.
    so_far : set of str
        The values that depend on all steps so far.
    heads : dict of str to int
        The values that are a few first steps, with their number.
    actions : list
        What each node does in a chunk.

    Raises
    ------
    ValueError
        An operator looks at the axis in a way that no rule allows. The message names it.
    """

    def __init__(
        self,
        where: str,
        graph: Graph,
        name: str,
        first: Mapping[str, Form],
        second: Mapping[str, Form],
        only_rows: bool = False,
    ) -> None:
        from fastrnn.program.streaming import parts, recurrent, rows, shapes, windows  # noqa: F401 - the rules

        self.where, self.graph, self.name, self.only_rows = where, graph, name, only_rows
        self.first, self.second = dict(first), dict(second)
        self.places: dict[str, Place] = {}
        self.late: dict[str, int] = {}
        self.is_even: dict[str, bool] = {}
        self.so_far: set[str] = set()
        self.heads: dict[str, int] = {}
        self.actions: list[Any] = []
        for form in graph.inputs:
            axes = [axis for axis, size in enumerate(form.shape) if size == name]
            if len(axes) > 1:
                got = f"two in {form.name}"
                raise ValueError(message(where, f"one axis of size {name} in each input", got))
            if axes:
                self.places[form.name] = Place(axes[0])
                self.counts = tuple(forms[form.name].shape[axes[0]] for forms in (self.first, self.second))
        for node in graph.nodes:
            self.actions.append(self.follow(node))
        for node in graph.nodes:
            if any(name in self.heads and name in graph.outputs for name in node.outputs):
                self.refuse(node, f"{node.operator} of steps at the beginning or the end")

    # ------------------------------------------------------------ nodes

    def follow(self, node: Node) -> Any:
        """Return the action of a node, and note where the steps of its results are."""
        given = list(arrays_of(node))
        has_steps = any(name in self.places for name in given)
        is_late = any(name in self.so_far for name in given)
        heads = [name for name in given if name in self.heads]
        if heads and node.operator not in JOINS:
            self.refuse(node, f"{node.operator} of the first {self.heads[heads[0]]} steps alone")
        if has_steps and is_late:
            self.refuse(node, f"{node.operator} of each step with what all steps give")
        if is_late:
            self.so_far.update(name for name in node.outputs if name is not None)
            return SoFar(self.fixed(node))
        if not has_steps and not self.is_changing(node):
            return Fixed(self.fixed(node))
        rule = RULES.get(node.operator)
        if rule is None or (not has_steps and node.operator not in MADE_FOR_ALL):
            changing = f" with a number that depends on {self.length}"
            self.refuse(node, f"{node.operator}{'' if has_steps else changing}")
        action = rule(self, node)
        if self.only_rows and not isinstance(action, (Rows, Fixed)):
            self.refuse(node, f"{node.operator} over rows")
        if isinstance(action, Rows):
            for name, place in zip(node.outputs, action.outputs, strict=False):
                if name is not None and place is not None:
                    self.places[name] = place
                    self.late[name] = max((self.late.get(source, 0) for source in action.places), default=0)
                    self.is_even[name] = all(self.is_even.get(source, True) for source in action.places)
        return action

    def is_changing(self, node: Node) -> bool:
        """Whether a number of a node depends on how many steps there are."""
        pairs = [self.pair(argument) for argument in node.arguments.values()]
        if node.body is not None:
            pairs.append(self.pair(node.body.count))
            return any(a != b for a, b in pairs) or any(self.is_changing(inner) for inner in node.body.nodes)
        return any(a != b for a, b in pairs)

    def refuse(self, node: Node, what: str) -> NoReturn:
        """Raise the error for an operator that looks at the axis in another way than step by step."""
        expected = (
            "operators that compute each row apart"
            if self.only_rows
            else "operators that go step by step in time"
        )
        raise ValueError(message(self.where, expected, f"{what}{f' at {node.where}' if node.where else ''}"))

    # ------------------------------------------------------------ what rules ask

    # What messages call the axis, its steps and their number.

    @property
    def axis_word(self) -> str:
        return "rows" if self.only_rows else "time"

    @property
    def steps_word(self) -> str:
        return "rows" if self.only_rows else "steps"

    @property
    def length(self) -> str:
        return "how many rows there are" if self.only_rows else "the length of the sequence"

    def place(self, argument: Any) -> Place | None:
        """Where the steps of an argument are; None if it has none."""
        return self.places.get(argument.name) if isinstance(argument, Value) else None

    def put(self, name: str, place: Place, source: str, count: int | None, is_even: bool = True) -> None:
        """Note where the steps of a result are, and how many of them are there before the sequence ends.

        Parameters
        ----------
        source : str
            The value whose steps they come from.
        count : int or None
            How many are there, at the first number of steps. None: as many are missing as of the source.
        is_even : bool
            Each comes from steps of its own.
        """
        self.places[name] = place
        self.is_even[name] = is_even and self.is_even.get(source, True)
        whole = place.steps(self.first[name].shape)
        self.late[name] = self.late.get(source, 0) if count is None else max(whole - count, 0)

    def there(self, source: str, alone: bool = False) -> int:
        """How many steps of a value are there before the sequence ends, at the first number of steps.

        alone: where each place along the axis counts as a step.
        """
        place, shape = self.places[source], self.first[source].shape
        count = place.steps(shape) - self.late.get(source, 0)
        return count * place.after if alone else count

    def shape(self, argument: Any) -> tuple[int, ...]:
        """The shape at the first number of steps."""
        return self.first[argument.name].shape

    def shapes(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.first[name].shape, self.second[name].shape

    def add_form(self, name: str, dtype: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        """Make a value known that is none of the graph's."""
        self.first[name], self.second[name] = (Form(dtype, shape) for shape in shapes)

    def pair(self, argument: Any) -> tuple[Any, Any]:
        """An argument with numbers for its sizes, at both numbers of steps."""
        first = map_argument(argument, lambda part: number_at(part, self.first))
        return first, map_argument(argument, lambda part: number_at(part, self.second))

    def number(self, node: Node, name: str, default: Any = None) -> Any:
        """An argument whose numbers do not depend on how many steps there are."""
        first, second = self.pair(node.arguments.get(name, default))
        if first != second:
            self.refuse(node, f"{node.operator} with a number that depends on {self.length}")
        return first

    def fixed(self, node: Node, **changes: Any) -> Node:
        """The node with numbers for sizes. changes: arguments that are others."""
        arguments = {
            name: changes[name] if name in changes else self.number(node, name) for name in node.arguments
        }
        arguments.update((name, changes[name]) for name in changes if name not in arguments)
        body = node.body
        if body is not None:
            count, other = self.pair(body.count)
            if count != other:
                self.refuse(node, "a loop over time")
            body = body._replace(nodes=tuple(self.fixed(inner) for inner in body.nodes), count=count)
        return node._replace(arguments=arguments, body=body)

    def rows(self, node: Node, outputs: Iterable[Place | None], place: Place | None = None) -> Rows:
        """The action of a node, with numbers for sizes, whose steps are apart.

        Parameters
        ----------
        place : Place, optional
            Where the steps of all inputs are to be, counted from the last axis: for operators that broadcast.
            If not given, they stay where they are.
        """
        places = {}
        for name in arrays_of(node):
            own = self.places.get(name)
            if own is not None:
                places[name] = own if place is None else place.at(own.axis)
        return Rows(node, places, tuple(outputs))


def arrays_of(node: Node) -> Iterator[str]:
    """Yield the names of the arrays that a node takes; not those whose sizes alone it asks for."""

    def names(argument: Any) -> Iterator[str]:
        if isinstance(argument, Value):
            yield argument.name
        elif isinstance(argument, tuple) and not isinstance(argument, Size):
            for part in argument:
                yield from names(part)

    for argument in node.arguments.values():
        yield from names(argument)
    if node.body is not None:
        own = {name for name, _, _ in node.body.carried}
        own |= {name for inner in node.body.nodes for name in inner.outputs if name is not None}
        yield from (before for _, before, _ in node.body.carried)
        for inner in node.body.nodes:
            yield from (name for name in arrays_of(inner) if name not in own)
