"""Rules of operators that move axes and take parts of other axes than that of the steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastrnn.graph import Node, Value
from fastrnn.program.axes import moved, swapped
from fastrnn.program.streaming.follow import Fixed, Followed, Rows, arrays_of, follows
from fastrnn.program.streaming.parts import joined_steps, part_of_steps
from fastrnn.program.streaming.places import Place, changed_axis, reshaped
from fastrnn.program.streaming.rows import common


class Joined(NamedTuple):
    """A reshape that makes one step of several.

    Attributes
    ----------
    node : Node
    source : str
    steps : int
        How many become one.
    place : Place
        Where the results' steps are.
    """

    node: Node
    source: str
    steps: int
    place: Place

    def build(self, chunk: Any) -> None:
        name = self.node.outputs[0]
        given = chunk.queue(f"{name}.steps", self.source)
        steps = given.steps // self.steps
        chunk.keep(f"{name}.steps", given, steps * self.steps)
        chunk.give(name, self.place, steps, self.node, [chunk.part(given, 0, steps * self.steps)])


def _reshape(f: Followed, node: Node) -> Any:
    """The action of a node that gives the same elements in another shape."""
    source, result = node.arguments["self"], node.outputs[0]
    place = f.place(source)
    assert result is not None
    if place is None or place.is_filled:
        f.refuse(node, f"{node.operator} of an array that is made for all steps at once")
    moved = reshaped(place, f.shapes(source.name), f.shapes(result))
    if moved is None:
        f.refuse(node, f"{node.operator} that mixes {f.steps_word}")
    shape = list(f.first[result].shape)
    shape[moved.place.axis] = -1
    made = Node("reshape", {"self": source, "shape": tuple(shape)}, node.outputs, node.where)
    if moved.joined > 1:
        f.put(result, moved.place, source.name, f.there(source.name) // moved.joined, is_even=False)
        return Joined(made, source.name, moved.joined, moved.place)
    return f.rows(made, [moved.place])


@follows(
    "reshape", "view", "_unsafe_view", "view_copy", "_reshape_alias", "flatten", "unflatten", "ravel",
    "squeeze", "squeeze_copy", "unsqueeze", "unsqueeze_copy",
)  # fmt: skip
def reshape(f: Followed, node: Node) -> Any:
    if node.arguments.get("dtype") is not None:
        f.refuse(node, "a view as another type")
    place = f.place(node.arguments["self"])
    if place is not None and place.is_filled and "squeeze" in node.operator:
        return _filled_squeeze(f, node, place)
    return _reshape(f, node)


def _filled_squeeze(f: Followed, node: Node, place: Place) -> Rows:
    """Axes of size 1 come or go beside an axis along which all is the same."""
    result = node.outputs[0]
    assert result is not None
    axis = changed_axis(*f.shapes(result))
    assert axis is not None
    made = place.at(axis)
    arguments = {"self": node.arguments["self"], "shape": made.shaped(f.first[result].shape, 1)}
    return f.rows(Node("reshape", arguments, node.outputs, node.where), [made])


@follows("view_as", "reshape_as")
def reshape_as(f: Followed, node: Node) -> Any:
    if f.place(node.arguments["self"]) is None:
        f.refuse(node, f"{node.operator} of an array that has no steps")
    return _reshape(f, node._replace(arguments={"self": node.arguments["self"]}))


# ---------------------------------------------------------------- axes in another order


def _moved(f: Followed, node: Node, axes: list[int]) -> Rows:
    """The action of a permutation. axes: the old axis of each new one."""
    place = f.place(node.arguments["self"])
    assert place is not None
    return f.rows(f.fixed(node), [place.at(axes.index(place.axis))])


@follows("permute", "permute_copy")
def permute(f: Followed, node: Node) -> Rows:
    ndim = len(f.shape(node.arguments["self"]))
    return _moved(f, node, [dim % ndim for dim in f.number(node, "dims")])


@follows("transpose", "transpose_copy", "swapdims", "swapaxes", "t", "t_copy", "numpy_T", "mT")
def transpose(f: Followed, node: Node) -> Rows:
    ndim = len(f.shape(node.arguments["self"]))
    if node.operator in ("t", "t_copy", "numpy_T"):
        return _moved(f, node, list(range(ndim))[::-1])
    first, second = (
        f.number(node, name, f.number(node, other, default))
        for name, other, default in (("dim0", "axis0", -2), ("dim1", "axis1", -1))
    )
    return _moved(f, node, swapped(ndim, first, second))


@follows("movedim", "moveaxis")
def movedim(f: Followed, node: Node) -> Rows:
    ndim = len(f.shape(node.arguments["self"]))
    return _moved(f, node, moved(ndim, f.number(node, "source"), f.number(node, "destination")))


@follows("view_as_real", "view_as_real_copy", "view_as_complex", "view_as_complex_copy")
def as_complex(f: Followed, node: Node) -> Rows:
    place = f.place(node.arguments["self"])
    assert place is not None
    return f.rows(f.fixed(node), [place])


# ---------------------------------------------------------------- parts of other axes


def _axis(f: Followed, node: Node, name: str = "dim", default: int = 0) -> tuple[Place | None, int]:
    array = node.arguments["self"]
    return f.place(array), f.number(node, name, default) % len(f.shape(array))


@follows("select", "select_copy", "slice", "slice_copy", "narrow", "narrow_copy")
def part(f: Followed, node: Node) -> Any:
    place, axis = _axis(f, node)
    if place is None:
        f.refuse(node, f"{node.operator} at a place that depends on {f.length}")
    if axis == place.axis:
        return part_of_steps(f, node, place)
    is_one = node.operator.startswith("select")
    return f.rows(f.fixed(node), [place.at(place.axis - (is_one and axis < place.axis))])


@follows(
    "chunk", "unsafe_chunk", "split", "unsafe_split", "split_with_sizes", "split_with_sizes_copy",
    "unsafe_split_with_sizes", "tensor_split", "unbind", "unbind_copy",
)  # fmt: skip
def parts(f: Followed, node: Node) -> Rows:
    place, axis = _axis(f, node)
    if place is None or axis == place.axis:
        f.refuse(node, f"{node.operator} over {f.axis_word}")
    is_one = node.operator.startswith("unbind")
    return f.rows(f.fixed(node), [place.at(place.axis - (is_one and axis < place.axis))] * len(node.outputs))


@follows("cat", "concat", "concatenate", "stack")
def cat(f: Followed, node: Node) -> Any:
    names = list(dict.fromkeys(arrays_of(node)))
    ndim = len(f.first[names[0]].shape)
    if node.operator == "stack":
        axis = f.number(node, "dim", 0) % (ndim + 1)
        place = common(f, node, names, ndim)
        return f.rows(f.fixed(node), [place.at(place.axis + (axis <= place.axis))], place)
    axis = f.number(node, "dim", 0) % ndim
    if any(own is not None and own.axis == axis for own in map(f.places.get, names)):
        return joined_steps(f, node, axis)
    if any(name in f.heads for name in names):
        f.refuse(node, "cat of the first steps alone")
    place = common(f, node, names, ndim)
    return f.rows(f.fixed(node), [place], place)


@follows("select_scatter", "slice_scatter")
def scatter(f: Followed, node: Node) -> Rows:
    array, source = node.arguments["self"], node.arguments["src"]
    ndim = len(f.shape(array))
    axis = f.number(node, "dim", 0) % ndim
    places = []
    is_one = node.operator == "select_scatter"
    for argument in (array, source):
        place = f.place(argument)
        if place is None:
            continue
        more = is_one and argument is source and place.axis >= axis
        places.append(place.at(place.axis + more))
    real = [place for place in places if not place.is_same] or places
    if real[0].axis == axis or any(place != real[0] for place in real):
        f.refuse(node, f"{node.operator} over time")
    if any(f.place(argument) is None for argument in (array, source)):
        f.refuse(node, f"{node.operator} of an array that has no steps")
    return f.rows(f.fixed(node), [real[0]], real[0])


@follows("tril", "triu")
def triangle(f: Followed, node: Node) -> Rows:
    place, _ = _axis(f, node, "none", 0)
    if place is None or place.axis >= len(f.shape(node.arguments["self"])) - 2:
        f.refuse(node, f"{node.operator} over time")
    return f.rows(f.fixed(node), [place])


# ---------------------------------------------------------------- repeated, and made for all steps


@follows("expand", "expand_copy", "broadcast_to", "expand_as")
def expand(f: Followed, node: Node) -> Any:
    source, result = node.arguments["self"], node.outputs[0]
    assert result is not None
    shape = list(f.first[result].shape)
    axis = changed_axis(*f.shapes(result))
    place = f.place(source)
    if axis is None:
        if place is None:
            return Fixed(_expanded(node, shape))
        f.refuse(node, f"{node.operator} of each step with each other one")
    if place is not None and place.axis + len(shape) - len(f.shape(source)) != axis:
        f.refuse(node, f"{node.operator} of each step with each other one")
    shape[axis] = 1 if place is None else -1
    if place is None:
        # The same at all steps: an axis of one is repeated where it is used.
        place = Place(axis, is_same=True)
    return f.rows(_expanded(node, shape), [place.at(axis)])


def _expanded(node: Node, shape: list[int]) -> Node:
    arguments = {"self": node.arguments["self"], "size": tuple(shape)}
    return Node("expand", arguments, node.outputs, node.where)


@follows("repeat", "tile", "repeat_interleave")
def repeat(f: Followed, node: Node) -> Rows:
    array = node.arguments["self"]
    place = f.place(array)
    ndim = len(f.shape(array))
    if place is not None and node.operator == "repeat_interleave":
        repeats, dim = node.arguments.get("repeats", 1), f.number(node, "dim")
        if isinstance(repeats, Value) or dim is None:
            f.refuse(node, "repeat_interleave with a number for each step")
        if dim % ndim == place.axis and not place.is_filled:
            # Each step becomes several.
            place = place._replace(after=place.after * repeats)
        arguments = {"self": array, "repeats": f.number(node, "repeats"), "dim": dim}
        return f.rows(node._replace(arguments=arguments), [place])
    counts, others = f.pair(node.arguments.get("repeats", node.arguments.get("dims")))
    more = len(counts) - ndim
    if place is None:
        # An axis of one that becomes as long as the sequence.
        axis = changed_axis(counts, others)
        own = () if axis is None else f.shape(array)[axis - more : axis - more + 1] if axis >= more else ()
        if axis is None or (own and own[0] != 1):
            f.refuse(node, f"{node.operator} of an array over time")
        place = Place(axis, is_same=True)
        name = "repeats" if "repeats" in node.arguments else "dims"
        return f.rows(f.fixed(node, **{name: (*counts[:axis], 1, *counts[axis + 1 :])}), [place])
    if counts != others or more < 0 or counts[place.axis + more] != 1:
        f.refuse(node, f"{node.operator} over time")
    return f.rows(f.fixed(node), [place.at(place.axis + more)])


@follows(
    "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "empty_strided",
    "new_empty_strided", "empty_permuted",
)  # fmt: skip
def filled(f: Followed, node: Node) -> Any:
    result = node.outputs[0]
    assert result is not None
    dtype, shape = f.first[result]
    value = node.arguments.get("fill_value", 1.0 if "ones" in node.operator else 0.0)
    axis = changed_axis(*f.shapes(result))
    if isinstance(value, Value) or (axis is None and shape != f.second[result].shape):
        f.refuse(node, f"{node.operator} with a number for each step")
    place = None if axis is None else Place(axis, is_same=True, is_filled=True)
    size = shape if place is None else place.shaped(shape, 1)
    made = Node("full", {"size": size, "fill_value": value, "dtype": dtype}, node.outputs, node.where)
    return Fixed(made) if place is None else Rows(made, {}, (place,))


@follows("upsample_nearest1d", "upsample_nearest2d")
def nearest(f: Followed, node: Node) -> Rows:
    array = node.arguments.get("self", node.arguments.get("input"))
    result = node.outputs[0]
    place = f.place(array)
    assert result is not None
    if place is None or not place.is_alone:
        f.refuse(node, f"{node.operator} over time")
    old, new = f.shapes(array.name), f.shapes(result)
    if place.axis < 2:
        size = tuple(f.first[result].shape[2:])
        made = node._replace(arguments={"self": array, "output_size": size})
        return f.rows(made, [place])
    times = {now[place.axis] / was[place.axis] for was, now in zip(old, new, strict=True)}
    is_alone = (
        old[0][2 : place.axis] + old[0][place.axis + 1 :] == new[0][2 : place.axis] + new[0][place.axis + 1 :]
    )
    factor = times.pop()
    if times or factor % 1 or not is_alone:
        f.refuse(node, f"{node.operator} by a factor that is no whole number")
    arguments = {"self": array, "repeats": int(factor), "dim": place.axis}
    made = Node("repeat_interleave", arguments, node.outputs, node.where)
    return f.rows(made, [place._replace(after=int(factor))])
