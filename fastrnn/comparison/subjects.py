"""Models, layers and programs, made ready to be compared: results by name, long runs, sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array, flat_state
from fastrnn.checks import check_array
from fastrnn.errors import brief, message
from fastrnn.layers import Layer
from fastrnn.layers.cells import RecurrentCell
from fastrnn.program.sequential import Sequential
from fastrnn.structure import rebuild

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastrnn.program.program import Program

WHERE = "compare"
# How many steps one call of a long run takes that cannot be cut.
Piece = tuple[int, list[Array]]


class OfLayers:
    """A model of layers."""

    def __init__(self, model: Sequential) -> None:
        self.model = model

    def read(self, x: Any, lengths: ArrayLike | None) -> tuple[Any, ...]:
        """Return the arguments (x, state, lengths) of a call."""
        x, state = (*x, None)[:2] if isinstance(x, tuple) and 1 <= len(x) <= 2 else (x, None)
        return check_array(WHERE, "x", x), state, lengths

    def call(self, x: Any, state: Any, lengths: Any) -> object:
        """Make one call."""
        return self.model(x, state, lengths=lengths)

    def results(self, x: Any, state: Any, lengths: Any) -> dict[str, Array]:
        """Return the output and the final states by name."""
        y, after = self.model(x, state, lengths=lengths)
        return {"y": y, **{f"state{index}": array for index, array in enumerate(flat_state(after))}}

    def each_layer(self, x: Any, state: Any, lengths: Any) -> Iterator[Array]:
        """Yield the output of each layer."""
        chain = self.model._chain
        if lengths is not None:
            lengths = self.model._check_lengths(x, lengths)
        states = chain.split_state(WHERE, state)
        return (y for _, y, _ in chain.each_output(x, states, lengths, self.model.batch_first))

    def pieces(self, steps: int, longest: int, x: Any, state: Any, lengths: Any) -> Iterator[Piece]:
        """Yield the outputs (steps, ...) of a run over x again and again, with the steps of each piece.

        Rows end where the longest of them does. A model that cannot stream takes all steps at once.
        """
        is_batched = x.ndim == (2 if self.model.signature.takes_tokens else 3)
        axis = 1 if self.model.batch_first and is_batched else 0
        x = x.swapaxes(0, axis)
        if lengths is not None:
            row = int(np.argmax(lengths))
            x = x[: lengths[row], row : row + 1]
            state = None
        if not self._streams():
            whole = np.resize(x, (steps, *x.shape[1:])).swapaxes(0, axis)
            if self.model.signature.gives_last:
                raise ValueError(message(WHERE, "an output for each step", "the last one alone"))
            yield steps, [self.model(whole, state)[0].swapaxes(0, axis)]
            return
        stream = self.model.stream(x.shape[1] if is_batched else None)
        if state is not None:
            stream.state = state
        done = 0
        while done < steps:
            begin = done % len(x)
            piece = x[begin : begin + min(longest, steps - done)]
            done += len(piece)
            yield len(piece), [stream.run(piece)]

    def _streams(self) -> bool:
        try:
            self.model.stream()
        except ValueError:  # it needs the whole sequence
            return False
        return True

    def stored_bytes(self) -> int:
        """Return what the weights take in a file."""
        return sum(w.nbytes for layer in self.model.layers for w in layer.spec().tensors.values())

    def memory_bytes(self) -> int:
        """Return what the weights take in memory."""
        return self.stored_bytes() + sum(layer.packed_bytes for layer in self.model.layers)


class OfProgram:
    """A program."""

    def __init__(self, program: Program) -> None:
        self.model = program

    def read(self, x: Any, lengths: ArrayLike | None) -> tuple[Any, ...]:
        """Return the arguments of a call."""
        if lengths is not None:
            hint = "A program takes them as one of its arguments, if it does."
            raise ValueError(message(WHERE, "no lengths beside a program", brief(lengths), hint))
        args = x if isinstance(x, tuple) else (x,)
        arrays = self.model._arrays(args, {})
        plain, _ = rebuild(self.model.spec.arguments, list(arrays))
        return tuple(plain)

    def call(self, *args: Any) -> object:
        """Make one call."""
        return self.model(*args)

    def results(self, *args: Any) -> dict[str, Array]:
        """Return the results by name."""
        arrays = _leaves(self.model(*args))
        return dict(zip(self.model.output_names, arrays, strict=False))

    def pieces(self, steps: int, longest: int, *args: Any) -> Iterator[Piece]:
        """Yield the results of a run over the arguments again and again, with the steps of each piece.

        Where the program's states are declared, a piece is one call.
        """
        stream = self.model.stream()
        arguments = dict(zip(self.model.spec.parameters, args, strict=True))
        taken = [arguments[name] for name in stream._arguments._positional]
        forms = iter(stream._arguments.inputs)
        axes = [_time_axes(argument, forms, stream.time) for argument in taken]
        lengths = {array.shape[axis] for pairs in axes for array, axis in pairs}
        if not lengths and stream.time is not None:
            raise ValueError(message(WHERE, "an argument with time", "none"))
        period = min(lengths, default=1)
        done = 0
        while done < steps:
            begin = done % period
            end = min(begin + longest, begin + steps - done, period)
            chunk = [_cut(argument, pairs, begin, end) for argument, pairs in zip(taken, axes, strict=True)]
            done += end - begin
            yield end - begin, _leaves(stream.run(*chunk))

    def stored_bytes(self) -> int:
        """Return what the constants take in a file."""
        constants = {id(array): array for array in self.model.graph.constants.values()}
        return sum(array.nbytes for array in constants.values())

    def memory_bytes(self) -> int:
        """Return what the constants take in memory. Copies for kernels belong to plans and are not known."""
        return self.stored_bytes()


def subject(model: object) -> OfLayers | OfProgram:
    """Return a model, layer or program, ready to be compared.

    Raises
    ------
    TypeError
        It is none of them.
    """
    from fastrnn.program.program import Program

    if isinstance(model, Program):
        return OfProgram(model)
    if isinstance(model, RecurrentCell) or not isinstance(model, (Layer, Sequential)):
        raise TypeError(message(WHERE, "a model, a Program or a layer over sequences", brief(model)))
    return OfLayers(model if isinstance(model, Sequential) else Sequential(model))


def _leaves(value: Any) -> list[Array]:
    """Return the arrays of a nested result in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in _leaves(part)]
    return [] if value is None else [np.asarray(value)]


def _time_axes(argument: Any, forms: Iterator[Any], time: str | None) -> list[tuple[Array, int]]:
    """Return the arrays of an argument that have time, each with the axis where it is."""
    pairs = []
    for array in _leaves(argument):
        shape = next(forms).shape
        if time is not None and time in shape:
            pairs.append((array, shape.index(time)))
    return pairs


def _cut(argument: Any, pairs: list[tuple[Array, int]], begin: int, end: int) -> Any:
    """Return an argument with some of the steps of its arrays."""
    if isinstance(argument, Mapping):
        return {name: _cut(part, pairs, begin, end) for name, part in argument.items()}
    if isinstance(argument, (tuple, list)):
        return type(argument)(_cut(part, pairs, begin, end) for part in argument)
    for array, axis in pairs:
        if array is argument:
            return array[(slice(None),) * axis + (slice(begin, end),)]
    return argument
