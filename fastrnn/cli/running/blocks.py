"""A recording through a model, in blocks whose size depends on nothing but the model and the shape."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastrnn.arrays import Array
from fastrnn.cli.running.recording import Layout, Recording, flatten_state, pack_state

if TYPE_CHECKING:
    import fastrnn

# A block holds this many numbers at most at the widest place of the model, unless one step or row has more.
BLOCK_NUMBERS = 2**23
# And it takes this many multiply-adds at most, about a second of one core: what an interrupt waits for.
BLOCK_WORK = 2**32
# Blocks of whole rows hold this many, if BLOCK_NUMBERS lets them: fewer would use the weights badly.
BLOCK_ROWS = 64


class Part(NamedTuple):
    """What goes where in an array of the output.

    `name` is y or that of an array of the final state, `shape` that of the whole array; its first
    size is -1 where nobody knows it yet. `place` is an index into the array.
    """

    name: str
    shape: tuple[int, ...]
    place: Any
    values: Array


class Piece(NamedTuple):
    """What a block gave.

    `done` counts the steps or rows of all blocks so far. `state` is the state after them, as
    arrays in a row; () where rows have states of their own, which are parts then.
    """

    done: int
    parts: tuple[Part, ...]
    state: tuple[Array, ...]


class Work:
    """A recording and the model that is to run over it.

    A model that only runs forward takes blocks of time, so that neither x (which may be a memory
    map) nor the output is ever in memory whole. One that needs whole sequences, or is given
    lengths, takes blocks of rows, and a single sequence all at once.

    Parameters
    ----------
    model : Sequential
    recording : Recording
    layout : Layout
        Both as `check_recording` returns them.

    Attributes
    ----------
    total : int
        How many steps or rows there are to do; `unit` says which.
    block : int
        How many of them a block has.
    is_in_order : bool
        Each block's output lies behind that of the block before.
    """

    def __init__(self, model: "fastrnn.Sequential", recording: Recording, layout: Layout) -> None:
        self.model, self.recording, self.layout = model, recording, layout
        self.takes_last = takes_last(model)
        self._stream = None if recording.lengths is not None else open_stream(model, layout.B)
        is_timed = self._stream is not None
        first = layout.time_axis if is_timed else layout.row_axis
        self.is_in_order = self.takes_last or not first
        self.total, self.unit = (layout.T, "step") if is_timed else (layout.B or 1, "row")
        self.block = (
            block_of_steps(model, layout) if is_timed else min(self.total, block_of_rows(model, layout))
        )

    def pieces(self, done: int = 0, state: Sequence[Array] = ()) -> Iterator[Piece]:
        """Run what comes behind the first `done` steps or rows.

        `done` is that of a Piece of an earlier run, and `state` its state. The pieces are then
        those that the earlier run would have given, bit by bit.
        """
        if self._stream is not None:
            return self._times(self._stream, done, state)
        if self.layout.B is not None:
            return self._rows(self.layout.B, done)
        return iter(()) if done else self._whole()

    def _times(self, stream: "fastrnn.Stream", done: int, state: Sequence[Array]) -> Iterator[Piece]:
        """Blocks of time; where the model takes the last step, each block has its own replaced."""
        set_state(stream, self.model, state if done else self.recording.state)
        is_row_first = self.layout.time_axis == 1
        x = self.recording.x
        steps = x.swapaxes(0, 1) if is_row_first else x
        for begin in range(done, self.layout.T, self.block):
            y = stream.run(steps[begin : begin + self.block])
            end = begin + len(y)
            shape, place = (self.layout.T, *y.shape[1:]), slice(begin, end)
            if self.takes_last:
                part = Part("y", y.shape[1:], Ellipsis, y[-1])
            elif is_row_first:
                part = Part("y", (shape[1], shape[0], *shape[2:]), (slice(None), place), y.swapaxes(0, 1))
            else:
                part = Part("y", shape, place, y)
            yield Piece(end, (part,), tuple(flatten_state(stream.state)))

    def _rows(self, B: int, done: int) -> Iterator[Piece]:
        """Blocks of rows, each with its whole sequence."""
        x, lengths, state = self.recording.x, self.recording.lengths, self.recording.state
        axis = 1 - self.layout.time_axis
        for begin in range(done, B, self.block):
            rows = slice(begin, begin + self.block)
            y, after = self.model(
                x[rows] if axis == 0 else x[:, rows],
                pack_state(self.model, [array[:, rows] for array in state]),
                lengths=None if lengths is None else lengths[rows],
            )
            end = min(begin + self.block, B)
            # Behind Last there is no time axis, and the rows come first.
            parts = [_rows_part("y", y, B, rows, 0 if self.takes_last else axis)]
            parts += [
                _rows_part(f"state{index}", array, B, rows, 1)
                for index, array in enumerate(flatten_state(after))
            ]
            yield Piece(end, tuple(parts), ())

    def _whole(self) -> Iterator[Piece]:
        y, after = self.model(self.recording.x, pack_state(self.model, self.recording.state))
        yield Piece(1, (Part("y", y.shape, Ellipsis, y),), tuple(flatten_state(after)))


def _rows_part(name: str, values: Array, B: int, rows: slice, axis: int) -> Part:
    shape = (*values.shape[:axis], B, *values.shape[axis + 1 :])
    return Part(name, shape, rows if axis == 0 else (slice(None), rows), values)


def takes_last(model: "fastrnn.Sequential") -> bool:
    return any(layer.is_last_step for layer in model.layers)


def count_out_axes(model: "fastrnn.Sequential", layout: Layout) -> int:
    """How many axes the output has."""
    return (1 if layout.B is None else 2) + (not takes_last(model))


def open_stream(model: "fastrnn.Sequential", B: int | None) -> "fastrnn.Stream | None":
    """A stream of B rows (None: one sequence), or None where the model needs whole sequences."""
    try:
        return model.stream(B)
    except ValueError:
        return None


def set_state(stream: "fastrnn.Stream", model: "fastrnn.Sequential", arrays: Sequence[Array]) -> None:
    state = pack_state(model, arrays)
    if state is not None:
        stream.state = state


def block_of_steps(model: "fastrnn.Sequential", layout: Layout) -> int:
    """How many steps of all rows a block has."""
    return _most(model, layout, layout.B or 1)


def block_of_rows(model: "fastrnn.Sequential", layout: Layout) -> int:
    """How many rows, each with its whole sequence, a block has; all where a layer looks across rows."""
    if any(layer.dim != -1 for layer in model.layers if hasattr(layer, "dim")):
        return layout.B or 1  # a softmax over another axis may be one over the rows
    within_memory = max(1, BLOCK_NUMBERS // (_width(model, layout) * layout.T))
    return max(min(BLOCK_ROWS, within_memory), _most(model, layout, layout.T))


def _most(model: "fastrnn.Sequential", layout: Layout, times: int) -> int:
    """How many things of `times` steps each are within both bounds of a block."""
    weights: int = sum(
        array.size
        for layer in model.layers
        if not layer.takes_tokens
        for array in layer.spec().tensors.values()
    )
    numbers = BLOCK_NUMBERS // (_width(model, layout) * times)
    return max(1, min(numbers, BLOCK_WORK // max(1, weights * times)))


def _width(model: "fastrnn.Sequential", layout: Layout) -> int:
    """The most numbers that a step of one row has, from the input to the output."""
    widths = [layer.features_out or 1 for layer in model.layers]
    given = 1 if model.layers[0].takes_tokens else layout.shape[-1]
    return max(given, *widths)
