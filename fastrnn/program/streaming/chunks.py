"""Writes the graph of one chunk: of the next steps, with what the chunks before left.

The same code writes three kinds. The first chunk has no steps: it makes the states with which a stream
begins, those of layers and the padding before the first step. The last one has none either: padding after the
last step brings out what windows held back. All chunks between are given steps.

How many steps each value has is known while a graph is written, so the graph holds numbers alone. Values that
have no steps in a chunk are left out of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.graph import Graph, Input, Loop, Node, Value, live, map_argument
from fastrnn.program.streaming.follow import Fixed, Followed, Rows, SoFar
from fastrnn.program.streaming.places import Place
from fastrnn.program.streaming.sizes import Form

# How many numbers an array of states has that is no tail: all.
WHOLE = -1


class Stretch(NamedTuple):
    """Steps of a value in a chunk.

    Attributes
    ----------
    name : str or None
        The value in the chunk's graph. None: there are no steps.
    steps : int
    place : Place
    form : Form
        Of the value, at some number of steps.
    """

    name: str | None
    steps: int
    place: Place
    form: Form

    @property
    def shape(self) -> tuple[int, ...]:
        return self.place.shaped(self.form.shape, self.steps)


class Signature(NamedTuple):
    """What the graph of a chunk depends on, beside its sizes: what the chunks before left.

    Attributes
    ----------
    arrays : tuple of (str, int)
        The states that are arrays, and how many steps each has; `WHOLE`: it has none, but is there.
    numbers : tuple of (str, int)
        Those that are numbers other than 0.
    """

    arrays: tuple[tuple[str, int], ...] = ()
    numbers: tuple[tuple[str, int], ...] = ()


class StateForm(NamedTuple):
    """What a state is made of.

    Attributes
    ----------
    source : str
        The value of which it keeps steps, or one that has the same rows.
    place : Place or None
        Where its steps are. None: it has none.
    form : Form
    axis : int or None
        The axis of its rows, if it is not that of the source.
    """

    source: str
    place: Place | None
    form: Form
    axis: int | None = None

    def shape(self, count: int) -> tuple[int, ...]:
        return self.form.shape if self.place is None else self.place.shaped(self.form.shape, count)


class ResultForm(NamedTuple):
    """A result of a chunk: an output of its graph, or nothing yet.

    Attributes
    ----------
    output : int or None
        Its number. None: there are no steps.
    steps : int
        0 for results without.
    """

    output: int | None
    steps: int


class ChunkGraph(NamedTuple):
    """The graph of a chunk.

    Attributes
    ----------
    graph : Graph
        Its outputs are the results and then the next states.
    shapes : list of tuple of int
        Of its inputs.
    sources : list of (str, object)
        What its inputs are: ("argument", index), ("state", index) or ("given", array).
    results : list of ResultForm
    after : Signature
    """

    graph: Graph
    shapes: list[tuple[int, ...]]
    sources: list[tuple[str, Any]]
    results: list[ResultForm]
    after: Signature


class Chunk:
    """Writes the graph of a chunk.

    Parameters
    ----------
    followed : Followed
    kind : {"first", "next", "last"}
    steps : int
        How many steps the inputs have.
    before : Signature
    states : dict of str to StateForm
        Filled with the forms of all states that are met.
    """

    def __init__(
        self, followed: Followed, kind: str, steps: int, before: Signature, states: dict[str, StateForm]
    ) -> None:
        self.followed, self.states = followed, states
        self.is_first, self.is_last = kind == "first", kind == "last"
        self._steps = steps
        self._counts, self._numbers = dict(before.arrays), dict(before.numbers)
        self._order = {key: index for index, (key, _) in enumerate(before.arrays)}
        self._kept: dict[str, Stretch | str] = {}
        self._after_numbers: dict[str, int] = {}
        self._nodes: list[Node] = []
        self._taken: set[str] = {*followed.graph.constants, *(form.name for form in followed.graph.inputs)}
        self._given: dict[str, tuple[Input, tuple[str, Any]]] = {}
        # Values of the whole graph: those that have steps, those that have none, those of all steps so far.
        self.flows: dict[str, Stretch] = {}
        self._fixed: dict[str, str] = {name: name for name in followed.graph.constants}
        self.so_far: dict[str, str | None] = {}

    # ------------------------------------------------------------ the whole chunk

    def write(self) -> ChunkGraph:
        """Return the graph."""
        for index, form in enumerate(self.followed.graph.inputs):
            place, known = self.followed.places.get(form.name), self.followed.first[form.name]
            shape = known.shape if place is None else place.shaped(known.shape, self._steps)
            self._given[form.name] = (Input(form.name, form.dtype, shape), ("argument", index))
            if place is None:
                self._fixed[form.name] = form.name
            else:
                name = form.name if self._steps else None
                self.flows[form.name] = Stretch(name, self._steps, place, known)
        for action in self.followed.actions:
            self.run(action)
        results = self._results()
        return self._finished(results)

    def run(self, action: Any) -> None:
        if isinstance(action, Fixed):
            self._named(action.node, self.emit(self.named(action.node, self._fixed)), self._fixed)
        elif isinstance(action, SoFar):
            self._run_so_far(action.node)
        elif isinstance(action, Rows):
            self._run_rows(action)
        else:
            action.build(self)

    def _run_so_far(self, node: Node) -> None:
        given = {name: self.so_far[name] for name in node.values() if name in self.so_far}
        if None in given.values():
            self.so_far.update((name, None) for name in node.outputs if name is not None)
        else:
            self._named(node, self.emit(self.named(node, {**self._fixed, **given})), self.so_far)

    def _named(self, node: Node, made: Sequence[str], names: dict[str, Any]) -> None:
        names.update((n, m) for n, m in zip(node.outputs, made, strict=True) if n is not None)

    def _run_rows(self, action: Rows) -> None:
        node = action.node
        moving = {name: place for name, place in action.places.items() if not self.flows[name].place.is_same}
        key = next(name for name in node.outputs if name is not None)
        given = self.aligned(key, moving)
        count = next((stretch.steps for stretch in given.values()), 1)
        names: dict[str, Any] = dict(self._fixed)
        names.update((name, stretch.name) for name, stretch in given.items())
        if count:
            for name, place in action.places.items():
                if name not in moving:
                    own = self.flows[name]
                    names[name] = self.repeated(own, place, count).name if moving else own.name
            made: Sequence[str | None] = self.emit(self.named(node, names))
        else:
            made = [None] * len(node.outputs)
        for given_name, value, own_place in zip(node.outputs, made, action.outputs, strict=False):
            if given_name is None:
                continue
            if own_place is not None:
                self.flows[given_name] = Stretch(value, count, own_place, self.followed.first[given_name])
            elif value is not None:
                self._fixed[given_name] = value

    # ------------------------------------------------------------ steps

    def place(self, name: str) -> Place:
        return self.flows[name].place

    def stretch(self, place: Place, count: int, name: str, made: str | None) -> Stretch:
        """Steps of a value of the whole graph."""
        return Stretch(made, count, place, self.followed.first[name])

    def pass_on(self, name: str, stretch: Stretch) -> None:
        """Give a value of the whole graph its steps."""
        self.flows[name] = stretch._replace(form=self.followed.first[name])

    def give(
        self, name: str, place: Place, steps: int, node: Node, given: Sequence[Stretch],
        arguments: Sequence[str] = ("self",), part: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """Give a value the steps that a node makes of others.

        Parameters
        ----------
        arguments : sequence of str
            The node's arguments that are `given`.
        part : pair of int, optional
            The steps of the node's result that are wanted, where it has others too.
        """
        made = None
        if steps:
            changes = {n: Value(s.name) for n, s in zip(arguments, given, strict=True)}  # type: ignore[arg-type]
            made = self.emit(
                self.named(node._replace(arguments={**node.arguments, **changes}), but=list(changes))
            )[0]
        result = self.stretch(place, steps, name, made)
        if part is not None and steps:
            result = self.part(result._replace(steps=part[1]), *part, is_longer=True)
        self.flows[name] = result

    def aligned(self, key: str, wanted: Mapping[str, Place]) -> dict[str, Stretch]:
        """The steps that all of these values have. What one has before others is kept for the next chunk."""
        own = {
            name: self._alone(self.flows[name])
            if place.after != self.flows[name].place.after
            else self.flows[name]
            for name, place in wanted.items()
        }
        held = {name: self._counts.get(f"{key}.{name}", 0) for name in own}
        count = min((held[name] + stretch.steps for name, stretch in own.items()), default=0)
        return {name: self._first(f"{key}.{name}", name, stretch, count) for name, stretch in own.items()}

    def _first(self, key: str, source: str, stretch: Stretch, count: int) -> Stretch:
        """The first steps of a value, together with those kept; the others are kept."""
        self._know(key, source, stretch)
        if not self._counts.get(key) and stretch.steps == count:
            return stretch
        both = self._together(key, stretch)
        self.keep(key, both, count)
        return self.part(both, 0, count)

    def queue(
        self, key: str, source: str, before: int = 0, after: int = 0, padding: float = 0, alone: bool = False
    ) -> Stretch:
        """The steps of a value after those that were kept.

        Parameters
        ----------
        before, after : int
            Steps of padding before the first step of all and after the last one.
        alone : bool
            With nothing but steps in their axis.
        """
        own = self.flows[source]
        own = self._alone(own) if alone else own
        self._know(key, source, own)
        if before and self.is_first:
            own = self.joined([self._padding(own, before, padding), own])
        both = self._together(key, own)
        if after and self.is_last:
            both = self.joined([both, self._padding(own, after, padding)])
        return both

    def _know(self, key: str, source: str, stretch: Stretch) -> None:
        self.states[key] = StateForm(source, stretch.place, stretch.form)

    def _together(self, key: str, stretch: Stretch) -> Stretch:
        count = self._counts.get(key, 0)
        if not count:
            return stretch
        held = Stretch(
            self._state_input(key, stretch.place.shaped(stretch.form.shape, count)), count, *stretch[2:]
        )
        return self.joined([held, stretch])

    def keep(self, key: str, stretch: Stretch, first: int) -> None:
        """Keep the steps from one on for the next chunk."""
        left = self.part(stretch, first, stretch.steps)
        if left.steps:
            self._kept[key] = left

    def number(self, key: str, default: int = 0) -> int:
        return default if self.is_first else self._numbers.get(key, 0)

    def set_number(self, key: str, value: int) -> None:
        if value:
            self._after_numbers[key] = value

    def state(self, key: str, first: str, source: str, axis: int | None = None) -> str:
        """The value of a state that has no steps.

        Parameters
        ----------
        first : str
            The value that it begins as.
        source : str
            A value that has the same rows, in the same axis if no other is given.
        """
        self.states[key] = StateForm(source, None, self.followed.first[first], axis)
        if self.is_first:
            return self._fixed[first]
        return self._state_input(key, self.followed.first[first].shape)

    def keep_state(self, key: str, value: str) -> None:
        self._kept[key] = value

    def _state_input(self, key: str, shape: tuple[int, ...]) -> str:
        name = f"{key}.before"
        if name not in self._given:
            self._taken.add(name)
            form = Input(name, self.states[key].form.dtype, shape)
            self._given[name] = (form, ("state", self._order[key]))
        return name

    def _padding(self, like: Stretch, count: int, padding: float) -> Stretch:
        made = like._replace(steps=count)
        return made._replace(name=self._constant(np.full(made.shape, padding, like.form.dtype)))

    def _constant(self, array: Array) -> str:
        """An array that does not count as constant: what is made of it is computed as it is of any steps."""
        name = self._new("given")
        self._given[name] = (Input(name, array.dtype.name, array.shape), ("given", array))
        return name

    def array(self, name: str, place: Place) -> Stretch:
        """A value without steps as steps."""
        form = self.followed.first[name]
        is_same = self._constant(np.ones((1,) * len(form.shape), np.bool_))
        own = Value(self._fixed[name])
        arguments = {"condition": Value(is_same), "self": own, "other": own}
        made = self.emit(Node("where", arguments, (name,)))[0]
        return Stretch(made, form.shape[place.axis], place, form)

    # ------------------------------------------------------------ views of steps

    def _alone(self, stretch: Stretch) -> Stretch:
        place = stretch.place
        return stretch._replace(place=Place(place.axis), steps=stretch.steps * place.after)

    def part(
        self, stretch: Stretch, first: int, end: int, stride: int = 1, is_longer: bool = False
    ) -> Stretch:
        """Some of the steps. is_longer: the value has more steps than it counts."""
        count = -(-(end - first) // stride)
        if count <= 0:
            return stretch._replace(name=None, steps=0)
        if count == stretch.steps and not is_longer:
            return stretch
        place = stretch.place
        if place.before == 1:
            arguments = {
                "dim": place.axis,
                "start": first * place.after,
                "end": end * place.after,
                "step": stride,
            }
            return self._viewed(stretch, count, "slice", arguments)
        opened = self._viewed(
            stretch, stretch.steps, "reshape", {"shape": place.opened(stretch.form.shape, stretch.steps)}
        )
        arguments = {"dim": place.axis + 1, "start": first, "end": end, "step": stride}
        cut = self._viewed(opened, count, "slice", arguments)
        return self._viewed(cut, count, "reshape", {"shape": cut.shape})

    def _viewed(self, stretch: Stretch, count: int, operator: str, arguments: dict[str, Any]) -> Stretch:
        node = Node(operator, {"self": Value(stretch.name), **arguments}, (stretch.name,))  # type: ignore[arg-type]
        return stretch._replace(name=self.emit(node)[0], steps=count)

    def joined(self, stretches: Iterable[Stretch]) -> Stretch:
        """Steps after each other."""
        given = list(stretches)
        parts = [stretch for stretch in given if stretch.steps]
        if len(parts) < 2:
            return parts[0] if parts else given[0]
        place, count = parts[0].place, sum(part.steps for part in parts)
        if place.before == 1:
            return self._cat(parts, place.axis, count)
        opened = [
            self._viewed(part, part.steps, "reshape", {"shape": place.opened(part.form.shape, part.steps)})
            for part in parts
        ]
        both = self._cat(opened, place.axis + 1, count)
        return self._viewed(both, count, "reshape", {"shape": both.shape})

    def _cat(self, parts: Sequence[Stretch], axis: int, count: int) -> Stretch:
        tensors = tuple(Value(part.name) for part in parts)  # type: ignore[arg-type]
        node = Node("cat", {"tensors": tensors, "dim": axis}, (parts[-1].name,))
        return parts[-1]._replace(name=self.emit(node)[0], steps=count)

    def repeated(self, stretch: Stretch, place: Place, count: int) -> Stretch:
        """What is the same at all steps, as this many of them."""
        own = stretch.place
        whole = stretch._replace(place=place._replace(is_same=False, is_filled=False))
        if own.is_filled or own.is_alone:
            shape = [-1] * len(stretch.form.shape)
            shape[own.axis] = place.before * count * place.after
            return self._viewed(whole, count, "expand", {"size": tuple(shape)})
        shape = own.opened(stretch.form.shape, 1)  # type: ignore[assignment]
        opened = self._viewed(whole, 1, "reshape", {"shape": tuple(shape)})
        size = own.opened(stretch.form.shape, count)
        spread = self._viewed(opened, count, "expand", {"size": size})
        return self._viewed(spread, count, "reshape", {"shape": spread.shape})

    # ------------------------------------------------------------ nodes

    def emit(self, node: Node) -> list[str]:
        """Add a node, and return the names that its results have here."""
        made = [None if name is None else self._new(name) for name in node.outputs]
        self._nodes.append(node._replace(outputs=tuple(made)))
        return made  # type: ignore[return-value]

    def inside(self, loop: Loop, names: Mapping[str, str]) -> tuple[Node, ...]:
        """The nodes of a loop with the names that values have here. names: those of values with steps."""
        own = {inner for inner, _, _ in loop.carried}
        own |= {name for node in loop.nodes for name in node.outputs if name is not None}
        known = {**self._fixed, **names, **{name: name for name in own}}
        return tuple(self.named(node, known) for node in loop.nodes)

    def _new(self, name: str) -> str:
        made, number = name, 0
        while made in self._taken:
            number += 1
            made = f"{name}.{number}"
        self._taken.add(made)
        return made

    def named(self, node: Node, names: Mapping[str, Any] | None = None, but: Sequence[str] = ()) -> Node:
        """The node with the names that values have here.

        Parameters
        ----------
        names : mapping, optional
            Those of values without steps, if not given.
        but : sequence of str
            The arguments that have such names already.
        """
        names = self._fixed if names is None else names

        def change(part: Any) -> Any:
            return Value(names[part.name]) if isinstance(part, Value) else part

        arguments = {
            name: argument if name in but else map_argument(argument, change)
            for name, argument in node.arguments.items()
        }
        body = node.body
        if body is not None:
            body = body._replace(
                nodes=self.inside(body, names),
                carried=tuple((inner, names[first], after) for inner, first, after in body.carried),
            )
        return node._replace(arguments=arguments, body=body)

    # ------------------------------------------------------------ results

    def _results(self) -> list[tuple[str | None, int]]:
        """The value of each output, and how many steps it has."""
        found: list[tuple[str | None, int]] = []
        groups: dict[tuple[Fraction, Fraction], list[int]] = {}
        for index, name in enumerate(self.followed.graph.outputs):
            found.append((None if self.is_first else self._fixed.get(name, self.so_far.get(name)), 0))
            if name in self.flows:
                groups.setdefault(length_of(self.followed, name), []).append(index)
        for number, (length, indices) in enumerate(groups.items()):
            # Results of one length come together, and none for steps that have not come.
            room = self._room(number, length)
            stretches = {index: self.flows[self.followed.graph.outputs[index]] for index in indices}
            moving = {i: s for i, s in stretches.items() if not s.place.is_same}
            counts = [self._counts.get(f"result.{i}", 0) + s.steps for i, s in moving.items()]
            count = max(min([*counts, *([] if self.is_last and counts else [room])]), 0)
            count = 0 if self.is_first else count
            self.set_number(f"room.{number}", room - count)
            for index, stretch in stretches.items():
                name = self.followed.graph.outputs[index]
                if index in moving:
                    result = self._first(f"result.{index}", name, stretch, count)
                else:
                    result = self.repeated(stretch, stretch.place, count) if count else stretch
                found[index] = (result.name if count else None, count)
        return found

    def _room(self, number: int, length: tuple[Fraction, Fraction]) -> int:
        """How many steps a result may have for what has come so far."""
        rate, more = length
        if self.is_first:
            return math.ceil(more)
        phase = self._numbers.get(f"phase.{number}", 0)
        grown = math.ceil(rate * (phase + self._steps) + more) - math.ceil(rate * phase + more)
        self.set_number(f"phase.{number}", (phase + self._steps) % rate.denominator)
        return self._numbers.get(f"room.{number}", 0) + grown

    def _finished(self, results: list[tuple[str | None, int]]) -> ChunkGraph:
        wanted: list[str] = []
        forms = []
        for name, count in results:
            forms.append(ResultForm(None if name is None else len(wanted), count))
            if name is not None:
                wanted.append(name)
        arrays = []
        for key, kept in self._kept.items():
            arrays.append((key, kept.steps if isinstance(kept, Stretch) else WHOLE))
            wanted.append(kept.name if isinstance(kept, Stretch) else kept)  # type: ignore[arg-type]
        nodes = live(self._nodes, wanted)
        needed = {*wanted, *(name for node in nodes for name in node.values())}
        inputs = [entry for name, entry in self._given.items() if name in needed]
        constants = {n: a for n, a in self.followed.graph.constants.items() if n in needed}
        graph = Graph(tuple(form for form, _ in inputs), tuple(nodes), tuple(wanted), constants)
        return ChunkGraph(
            graph,
            [form.shape for form, _ in inputs],  # type: ignore[misc]
            [source for _, source in inputs],
            forms,
            Signature(tuple(arrays), tuple(self._after_numbers.items())),
        )


def length_of(followed: Followed, name: str) -> tuple[Fraction, Fraction]:
    """How many steps a value of the whole sequence has, as (rate, more): rate * steps + more."""
    place = followed.places[name]
    sizes = [shape[place.axis] if place.is_filled else place.steps(shape) for shape in followed.shapes(name)]
    rate = Fraction(sizes[1] - sizes[0], followed.counts[1] - followed.counts[0])
    return rate, sizes[0] - rate * followed.counts[0]
