"""Rules of recurrent layers, cells and loops: their states are carried from chunk to chunk."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastrnn.graph import Loop, Node, Size, Value
from fastrnn.program.streaming.follow import Followed, Rows, arrays_of, follows
from fastrnn.program.streaming.places import Place


class Layer(NamedTuple):
    """A recurrent layer that goes along the steps.

    Attributes
    ----------
    node : Node
    source : str
    place : Place
    states : tuple of str
        Its first states.
    """

    node: Node
    source: str
    place: Place
    states: tuple[str, ...]

    def build(self, chunk: Any) -> None:
        name, *last = self.node.outputs
        given = chunk.queue(f"{name}.steps", self.source, alone=True)
        keys = [f"{name}.{letter}" for letter in ("h", "c")[: len(self.states)]]
        before = [
            chunk.state(key, first, self.source, 1) for key, first in zip(keys, self.states, strict=True)
        ]
        after = before
        if given.steps:
            hx = tuple(map(Value, before)) if self.node.operator == "lstm" else Value(before[0])
            arguments = {**self.node.arguments, "input": Value(given.name), "hx": hx}
            node = self.node._replace(arguments=arguments, outputs=(name, *keys))
            made, *after = chunk.emit(chunk.named(node, but=("input", "hx")))
        chunk.pass_on(name, chunk.stretch(self.place, given.steps, name, made if given.steps else None))
        for key, value, shown in zip(keys, after, last, strict=False):
            chunk.keep_state(key, value)
            if shown is not None:
                chunk.so_far[shown] = value


@follows("lstm", "gru", "rnn_tanh", "rnn_relu")
def layer(f: Followed, node: Node) -> Any:
    given, hx = node.arguments["input"], node.arguments["hx"]
    place = f.place(given)
    ndim = len(f.shape(given))
    states = hx if type(hx) is tuple else (hx,)
    steps_axis = 1 if ndim == 3 and node.arguments.get("batch_first", False) else 0
    if node.arguments.get("lengths") is not None:
        f.refuse(node, f"{node.operator} over rows of several lengths")
    others = {name: argument for name, argument in node.arguments.items() if name not in ("input", "hx")}
    if place is None or any(name in f.places for name in arrays_of(node._replace(arguments=others))):
        f.refuse(node, f"{node.operator} with a weight or a first state for each step")
    if place.axis == steps_axis:
        if node.arguments.get("bidirectional", False):
            f.refuse(node, f"a bidirectional {node.operator} over time, which needs the whole sequence")
        if place.is_same or place.before > 1 or any(f.place(state) is not None for state in states):
            f.refuse(node, f"{node.operator} over an axis in which there is more than steps")
        f.put(node.outputs[0], Place(place.axis), given.name, f.there(given.name, alone=True))  # type: ignore[arg-type]
        f.so_far.update(name for name in node.outputs[1:] if name is not None)
        return Layer(f.fixed(node), given.name, Place(place.axis), tuple(state.name for state in states))
    if place.axis == ndim - 1:
        f.refuse(node, f"{node.operator} with {f.steps_word} as features")
    return _in_batch(f, node, place, place.axis, 1)


def _in_batch(f: Followed, node: Node, place: Place, axis: int, states_axis: int) -> Rows:
    """The action of a layer or cell whose rows are, or have among them, the steps."""
    hx = node.arguments["hx"]
    states = hx if type(hx) is tuple else (hx,)
    real = place
    for state in states:
        own = f.place(state)
        if own is None or own.axis != states_axis:
            f.refuse(node, f"{node.operator} with one first state for all {f.steps_word}")
        if not own.is_same:
            real = own if place.is_same else place
            if not place.is_same and (own.before, own.after) != (place.before, place.after):
                f.refuse(node, f"{node.operator} of steps with states of others")
    if place.is_same and any(not f.places[state.name].is_same for state in states):
        f.refuse(node, f"{node.operator} of one input with a state for each step")
    outputs = [real.at(axis)] + [real.at(states_axis)] * (len(node.outputs) - 1)
    return f.rows(f.fixed(node), outputs, real)


@follows("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(f: Followed, node: Node) -> Rows:
    place = f.place(node.arguments["input"])
    if place is None or place.axis != 0 or len(f.shape(node.arguments["input"])) != 2:
        f.refuse(node, f"{node.operator} with a weight or a first state for each step")
    return _in_batch(f, node, place, 0, 0)


# ---------------------------------------------------------------- loops


class Buffer(NamedTuple):
    """An array with a place for each step, which a loop fills.

    Attributes
    ----------
    inner, first, after : str
        Its name in a step, the value that it begins as, and the name after a step.
    place : Place
        Where its steps are.
    """

    inner: str
    first: str
    after: str
    place: Place


class Steps(NamedTuple):
    """A loop over the steps.

    Attributes
    ----------
    node : Node
        It carries states alone.
    sources : tuple of str
        The values of which each step of the loop takes one step.
    buffers : tuple of Buffer
    """

    node: Node
    sources: tuple[str, ...]
    buffers: tuple[Buffer, ...]

    def build(self, chunk: Any) -> None:
        loop = self.node.body
        assert loop is not None
        name = next(name for name in self.node.outputs if name is not None)
        given = chunk.aligned(f"{name}.steps", {source: chunk.place(source) for source in self.sources})
        count = next(iter(given.values())).steps
        keys = [f"{name}.{inner}" for inner, _, _ in loop.carried]
        before = [
            chunk.state(key, first, inner) for key, (inner, first, _) in zip(keys, loop.carried, strict=True)
        ]
        # The values of the body that the node gives: of all steps, of the last one, and the next states.
        wanted = [*loop.collected, *loop.last, *(after for _, _, after in loop.carried)]
        if count:
            carried = [
                (inner, own, after) for (inner, _, after), own in zip(loop.carried, before, strict=True)
            ]
            for inner, first, after, place in self.buffers:
                carried.append((inner, chunk.repeated(chunk.flows[first], place, count).name, after))
            last = tuple(wanted[len(loop.collected) :])
            body = Loop(loop.nodes, count, tuple(carried), loop.collected, last)
            names = {source: stretch.name for source, stretch in given.items()}
            body = body._replace(nodes=chunk.inside(body, names))
            outputs = tuple(f"{name}.{index}" for index in range(len(wanted)))
            made = chunk.emit(Node("loop", {}, outputs, self.node.where, body))
        else:
            # Without a step, what the last one gave is known if it is a state.
            known = dict(zip((after for _, _, after in loop.carried), before, strict=True))
            made = [None] * len(loop.collected) + [
                known.get(value) for value in wanted[len(loop.collected) :]
            ]
        for key, value in zip(keys, made[len(made) - len(keys) :], strict=True):
            chunk.keep_state(key, value)
        places = {buffer.after: buffer.place for buffer in self.buffers}
        for index, shown in enumerate(self.node.outputs):
            if shown is None:
                continue
            own = Place(0) if index < len(loop.collected) else places.get(wanted[index])
            if own is None:
                chunk.so_far[shown] = made[index]
            else:
                chunk.pass_on(shown, chunk.stretch(own, count, shown, made[index] if count else None))


@follows("loop")
def loop(f: Followed, node: Node) -> Any:
    body = node.body
    assert body is not None
    if any(inner.body is not None for inner in body.nodes):
        f.refuse(node, "a loop in a loop")
    if f.only_rows:
        return _loop_of_rows(f, node)
    counts = f.pair(body.count)
    sources: dict[str, None] = {}
    nodes = []
    for inner in body.nodes:
        for name in arrays_of(inner):
            if name in f.so_far:
                f.refuse(inner, f"{inner.operator} of each step with what all steps give")
            place = f.places.get(name)
            if place is None:
                continue
            steps = tuple(place.steps(shape) for shape in f.shapes(name))
            if not place.is_same and (
                steps != counts
                or inner.operator not in ("select", "slice")
                or not _takes_own_step(f, inner, place)
            ):
                f.refuse(inner, f"a loop whose steps use others than their own step in {inner.operator}")
            if place.is_same:
                f.refuse(inner, f"a loop over what is the same at all steps in {inner.operator}")
            sources[name] = None
        nodes.append(f.fixed(inner))
    if not sources or counts[0] == counts[1]:
        f.refuse(node, "a loop that is not over time but over what has steps")
    buffers, carried = [], []
    for inner_name, before, after in body.carried:
        if before in f.so_far:
            f.refuse(node, "a loop that begins with what all steps give")
        if before in f.places:
            buffers.append(_buffer(f, node, inner_name, before, after))
        else:
            carried.append((inner_name, before, after))
    source = next(iter(sources))
    count = min(map(f.there, sources))
    places = {buffer.after: buffer.place for buffer in buffers}
    for index, given in enumerate(node.outputs):
        if given is None:
            continue
        is_collected = index < len(body.collected)
        own = Place(0) if is_collected else places.get(body.last[index - len(body.collected)])
        if own is None:
            f.so_far.add(given)
        else:
            f.put(given, own, source, count, is_even=False)
    made = node._replace(body=body._replace(nodes=tuple(nodes), count=0, carried=tuple(carried)))
    return Steps(made, tuple(sources), tuple(buffers))


def _buffer(f: Followed, node: Node, inner: str, first: str, after: str) -> Buffer:
    """A carried value with a place for each step, of which each step of a loop uses its own alone."""
    body = node.body
    assert body is not None
    place = f.places[first]
    users = [user for user in body.nodes if inner in arrays_of(user)]
    writers = [user for user in users if user.outputs == (after,)]
    steps = tuple(shape[place.axis] for shape in f.shapes(first))
    fits = (
        place.is_same
        and place.is_alone
        and steps == f.pair(body.count)
        and len(writers) == 1
        and writers[0].operator in ("select_scatter", "slice_scatter")
        and writers[0].arguments["src"] != Value(inner)
        and all(user in writers or user.operator in ("select", "slice") for user in users)
        and all(user.arguments["self"] == Value(inner) and _takes_own_step(f, user, place) for user in users)
    )
    if not fits:
        f.refuse(node, "a loop that begins with what has steps")
    return Buffer(inner, first, after, Place(place.axis))


def _takes_own_step(f: Followed, node: Node, place: Place) -> bool:
    """Whether a node within a loop takes or writes the step whose number is the loop's."""
    arguments = node.arguments
    if not place.is_alone or f.number(node, "dim", 0) % len(f.shape(arguments["self"])) != place.axis:
        return False
    if node.operator.startswith("select"):
        return bool(f.number(node, "index") == Size("step"))
    if node.operator.startswith("slice") and arguments.get("step", 1) == 1:
        start, end = f.number(node, "start"), f.number(node, "end")
        return start == Size("step") and end in (Size("+", Size("step"), 1), Size("+", 1, Size("step")))
    return False


def _loop_of_rows(f: Followed, node: Node) -> Rows:
    """Rows of a batch in a loop: each of its values has them in one place in all steps."""
    body = node.body
    assert body is not None
    for inner, before, after in body.carried:
        place = f.places.get(before)
        if place is None:
            f.refuse(node, f"a loop that begins with one array for all rows, {before}")
        if place.is_filled and f.first[before].shape[place.axis] != f.counts[0]:
            f.refuse(node, f"a loop over an axis in which there is more than rows, of {before}")
        f.places[inner] = place._replace(is_same=False, is_filled=False) if place.is_same else place
        f.places.setdefault(after, f.places[inner])
    for inner_node in body.nodes:
        f.follow(inner_node)
    for inner, _, after in body.carried:
        if f.places.get(after) != f.places[inner]:
            f.refuse(node, "a loop that moves its rows")
    outputs: list[Place | None] = []
    for name in body.collected:
        place = f.places.get(name)
        outputs.append(None if place is None else place.at(place.axis + 1))
    outputs += [f.places.get(name) for name in body.last]
    return Rows(node, {}, tuple(outputs))
