"""A recording in pieces, each of which is read, run and written at once.

The size of a piece depends on nothing but the model and the shape of the recording.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastrnn.arrays import Array, flat_state
from fastrnn.cli.running.recording import Layout, Recording, pack_state

if TYPE_CHECKING:
    import fastrnn

# A piece holds at most this many numbers at the widest place of the model, unless one step or row has more.
PIECE_NUMBERS = 2**23
# It takes at most this many multiply-adds. That is about a second on one core: what an interrupt waits for.
PIECE_MULTIPLY_ADDS = 2**32
# Pieces of whole rows have at least this many rows, if PIECE_NUMBERS allows it. Fewer would use the weights
# badly.
PIECE_ROWS = 64


class Patch(NamedTuple):
    """Values, and where in an array of the output they go.

    `name` is y, or that of an array of the final state. `shape` is that of the whole array; its first
    size is -1 while nobody knows it. `place` is an index into the array.
    """

    name: str
    shape: tuple[int, ...]
    place: Any
    values: Array


class Piece(NamedTuple):
    """What came out of one piece.

    `done` counts the steps or rows of all pieces so far. `state` is the state after them, its arrays in
    order. It is () where the rows have states of their own: those are among the patches.
    """

    done: int
    patches: tuple[Patch, ...]
    state: tuple[Array, ...]


class Pieces:
    """A recording, cut into pieces that a model runs over one after the other.

    A model that only runs forward takes pieces of time, so that neither x (which may be a memory map) nor
    the output is ever whole in memory. A model that needs whole sequences, or is given lengths, takes
    pieces of rows. A single sequence that has to be whole is one piece.

    Parameters
    ----------
    model : Sequential
    recording : Recording
    layout : Layout
        Both as `check_recording` returns them.

    Attributes
    ----------
    total : int
        How many steps or rows there are in all. `unit` says which.
    size : int
        How many of them are in a piece.
    is_in_order : bool
        Whether the output of each piece comes right after that of the piece before.
    """

    def __init__(self, model: "fastrnn.Sequential", recording: Recording, layout: Layout) -> None:
        self.model, self.recording, self.layout = model, recording, layout
        self.takes_last = takes_last(model)
        self._stream = None if recording.lengths is not None else open_stream(model, layout.B)
        is_timed = self._stream is not None
        first = layout.time_axis if is_timed else layout.row_axis
        self.is_in_order = self.takes_last or not first
        self.total, self.unit = (layout.T, "step") if is_timed else (layout.B or 1, "row")
        self.size = (
            steps_in_piece(model, layout) if is_timed else min(self.total, rows_in_piece(model, layout))
        )

    def run(self, done: int = 0, state: Sequence[Array] = ()) -> Iterator[Piece]:
        """Run what comes after the first `done` steps or rows.

        Both arguments come from a Piece of an earlier run. The results are then those that the earlier run
        would have given, bit for bit.
        """
        if self._stream is not None:
            return self._times(self._stream, done, state)
        if self.layout.B is not None:
            return self._rows(self.layout.B, done)
        return iter(()) if done else self._whole()

    def _times(self, stream: "fastrnn.Stream", done: int, state: Sequence[Array]) -> Iterator[Piece]:
        """Pieces of time. If the model takes the last step, each output replaces the one before."""
        set_state(stream, self.model, state if done else self.recording.state)
        is_row_first = self.layout.time_axis == 1
        x = self.recording.x
        steps = x.swapaxes(0, 1) if is_row_first else x
        for begin in range(done, self.layout.T, self.size):
            y = stream.run(steps[begin : begin + self.size])
            end = begin + len(y)
            shape, place = (self.layout.T, *y.shape[1:]), slice(begin, end)
            if self.takes_last:
                patch = Patch("y", y.shape[1:], Ellipsis, y[-1])
            elif is_row_first:
                patch = Patch("y", (shape[1], shape[0], *shape[2:]), (slice(None), place), y.swapaxes(0, 1))
            else:
                patch = Patch("y", shape, place, y)
            yield Piece(end, (patch,), tuple(flat_state(stream.state)))

    def _rows(self, B: int, done: int) -> Iterator[Piece]:
        """Pieces of rows, each row with its whole sequence."""
        x, lengths, state = self.recording.x, self.recording.lengths, self.recording.state
        axis = 1 - self.layout.time_axis
        for begin in range(done, B, self.size):
            rows = slice(begin, begin + self.size)
            y, after = self.model(
                x[rows] if axis == 0 else x[:, rows],
                pack_state(self.model, [array[:, rows] for array in state]),
                lengths=None if lengths is None else lengths[rows],
            )
            end = min(begin + self.size, B)
            # After Last there is no time axis, so the rows come first.
            patches = [_rows_patch("y", y, B, rows, 0 if self.takes_last else axis)]
            patches += [
                _rows_patch(f"state{index}", array, B, rows, 1)
                for index, array in enumerate(flat_state(after))
            ]
            yield Piece(end, tuple(patches), ())

    def _whole(self) -> Iterator[Piece]:
        y, after = self.model(self.recording.x, pack_state(self.model, self.recording.state))
        yield Piece(1, (Patch("y", y.shape, Ellipsis, y),), tuple(flat_state(after)))


def _rows_patch(name: str, values: Array, B: int, rows: slice, axis: int) -> Patch:
    shape = (*values.shape[:axis], B, *values.shape[axis + 1 :])
    return Patch(name, shape, rows if axis == 0 else (slice(None), rows), values)


def takes_last(model: "fastrnn.Sequential") -> bool:
    return model.signature.gives_last


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


def steps_in_piece(model: "fastrnn.Sequential", layout: Layout) -> int:
    """How many steps, each of all rows, are in a piece."""
    return _most(model, layout, layout.B or 1)


def rows_in_piece(model: "fastrnn.Sequential", layout: Layout) -> int:
    """How many rows, each with its whole sequence, are in a piece: all if a layer looks across rows."""
    if looks_across_rows(model):
        return layout.B or 1
    within_memory = max(1, PIECE_NUMBERS // (_width(model, layout) * layout.T))
    return max(min(PIECE_ROWS, within_memory), _most(model, layout, layout.T))


def looks_across_rows(model: "fastrnn.Sequential") -> bool:
    """Whether outputs may depend on other rows, as those of a softmax over another axis than the last may."""
    return any(layer.dim != -1 for layer in model.layers if hasattr(layer, "dim"))


def _most(model: "fastrnn.Sequential", layout: Layout, times: int) -> int:
    """How many things of `times` steps each are within both bounds of a piece."""
    weights: int = sum(
        array.size
        for layer in model.layers
        if not layer.signature.takes_tokens
        for array in layer.spec().tensors.values()
    )
    numbers = PIECE_NUMBERS // (_width(model, layout) * times)
    return max(1, min(numbers, PIECE_MULTIPLY_ADDS // max(1, weights * times)))


def _width(model: "fastrnn.Sequential", layout: Layout) -> int:
    """How many numbers a step of one row has at the widest place, from the input to the output."""
    widths = [layer.features_out or 1 for layer in model.layers]
    given = 1 if model.signature.takes_tokens else layout.shape[-1]
    return max(given, *widths)
