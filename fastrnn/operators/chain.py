"""Layers one after the other: whether they fit, what they take, give and keep together, and how they run."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike, as_plain
from fastrnn.checks import check_array, check_out, check_state, check_tokens
from fastrnn.errors import brief, message
from fastrnn.operators.runner import Runner
from fastrnn.operators.signature import Signature, Trait

# A layer as it is seen from below: its call, its `signature` and its `operator` (`layers.base.Layer`).
LayerLike: TypeAlias = Any


class Chain:
    """Layers that follow one another.

    Attributes
    ----------
    layers : tuple of layers
    stateful : list of layers
        Those that have a state, in order.
    signature : Signature
        Of all of them together. Its states are "state0", "state1" and so on.
    runner : Runner or None
        What runs all of them in compiled code. None where a layer has to be called by itself, or where their
        types differ.

    Raises
    ------
    TypeError
        There are no layers in a sequence.
    ValueError
        There is none, or two neighbours do not fit.
    """

    is_live = False

    def __init__(self, where: str, layers: Iterable[LayerLike]) -> None:
        self.layers = _check_layers(where, layers)
        self.stateful = [layer for layer in self.layers if layer.signature.states]
        self.signature = _signature(where, self.layers)

    @functools.cached_property
    def runner(self) -> Runner | None:
        """The runner of all layers, if each of them has an operator, and all are of one dtype."""
        idle = {Trait.IDENTITY, Trait.LAST} if self.is_live else {Trait.IDENTITY}
        moving = [layer for layer in self.layers if layer.signature.trait not in idle or is_foreign(layer)]
        dtypes = {layer.signature.dtype for layer in moving} - {None}
        # Whatever comes before the first weights is of the input's own type.
        if not moving or len(dtypes) != 1 or moving[0].signature.dtype is None:
            return None
        operators = []
        for layer in moving:
            operator = None if is_foreign(layer) else layer.operator(*dtypes)
            if operator is None:
                return None
            operators.append(operator)
        return Runner(operators)

    def split_state(self, where: str, state: StateLike) -> list[StateLike]:
        """The state of each layer that has one, out of the state of all: None, one, or a tuple of them."""
        count = len(self.stateful)
        if state is None:
            return [None] * count
        if count == 1:
            return [state]
        if not isinstance(state, (tuple, list)) or len(state) != count:
            got = f"{len(state)}" if isinstance(state, (tuple, list)) else type(state).__name__
            expected = f"a tuple of {count} states" if count else "no state"
            raise ValueError(message(where, expected, got, "One for each recurrent layer, in order."))
        return list(state)

    def nest_state(self, arrays: Iterable[Floats]) -> State | None:
        """The state of all layers, of its arrays in order."""
        rest = iter(arrays)
        states: list[State] = [
            layer.pack_state([next(rest) for _ in layer.signature.states]) for layer in self.stateful
        ]
        return join_state(states)

    def run_each(
        self,
        where: str,
        x: Any,
        states: Sequence[StateLike],
        lengths: Array | None = None,
        batch_first: bool = False,
    ) -> tuple[Array, list[State]]:
        """Call one layer after the other; give what the last one gives, and the states after it.

        x and lengths are as callers gave them. Of a live chain x is checked already, (T, ...): time comes
        first whatever the layout of its layers is."""
        before, after = iter(states), []
        for layer in self.layers:
            signature = layer.signature
            if signature.states and self.is_live:
                x, state = layer.run(x, next(before), None, None, False)
                after.append(state)
            elif signature.states:
                x, state = layer(x, next(before), lengths=lengths)
                after.append(state)
            elif signature.trait is not Trait.LAST:
                given = x
                x = layer(x)
                if self.is_live and is_foreign(layer):
                    x = _check_given(where, layer, given, x)
            elif not self.is_live:
                x = layer(x, lengths=lengths, batch_first=batch_first)
        return x, after


def join_state(states: Sequence[State]) -> State | None:
    """The state of several layers: None, that of the one that has a state, or a tuple of them."""
    return None if not states else states[0] if len(states) == 1 else tuple(states)


def _check_layers(where: str, layers: Iterable[LayerLike]) -> tuple[LayerLike, ...]:
    """The layers as a tuple, if they may follow one another: tokens first, nothing over time after Last."""
    if not isinstance(layers, Iterable):
        raise TypeError(message(where, "layers in a sequence", brief(layers)))
    layers = tuple(layers)
    if not layers:
        raise ValueError(message(where, "at least one layer", "none"))
    is_over = False
    for index, layer in enumerate(layers):
        if not isinstance(getattr(layer, "signature", None), Signature) or not callable(layer):
            raise TypeError(message(where, "layers of fastrnn", brief(layer)))
        at = f"{where}: layer {index}, {layer!r}"
        if layer.signature.takes_tokens and index:
            raise ValueError(message(at, "layers of tokens first", "one further on"))
        if is_over and (layer.signature.states or layer.signature.trait is Trait.LAST):
            raise ValueError(message(at, "an input with time steps", "what Last gives"))
        is_over = is_over or layer.signature.gives_last
    return layers


def _signature(where: str, layers: Sequence[LayerLike]) -> Signature:
    """What layers take, give and keep together; or raise, if two do not fit."""
    signatures = [layer.signature for layer in layers]
    taken: int | None = None
    given: int | None = None
    for index, own in enumerate(signatures):
        if own.features_in is not None and given not in (None, own.features_in):
            got = f"{given} from the layer before"
            at = f"{where}: layer {index}, {layers[index]!r}"
            raise ValueError(message(at, f"{own.features_in} features", got))
        if given is None and taken is None:
            taken = own.features_in
        given = given if own.features_out is None else own.features_out
    traits = {own.trait for own in signatures}
    shapes = [shape for own in signatures for shape in own.states.values()]
    return Signature(
        next((trait for trait in (Trait.WHOLE, Trait.STEPWISE) if trait in traits), Trait.ROWWISE),
        taken,
        given,
        tokens=signatures[0].tokens,
        dtype=next((own.dtype for own in reversed(signatures) if own.dtype is not None), None),
        states={f"state{index}": shape for index, shape in enumerate(shapes)},
        gives_last=any(own.gives_last for own in signatures),
    )


class StreamLayers(Chain):
    """The layers of a stream or a pool.

    Raises
    ------
    ValueError
        There is no layer, or one needs the whole sequence.
    """

    is_live = True

    def __init__(self, where: str, layers: Sequence[LayerLike]) -> None:
        super().__init__(where, layers)
        for layer in self.stateful:
            if is_foreign(layer):
                hint = "A stream cannot call it, since a step keeps its state."
                raise TypeError(message(where, "recurrent layers of fastrnn", _name_of(layer), hint))
            if layer.signature.trait is Trait.WHOLE:
                hint = "Its reverse direction begins at the end of the sequence: run it whole."
                raise ValueError(message(where, "layers that run forward", f"{layer!r}", hint))
        self.layers = tuple(
            _of_last_axis(layer, axes) for layer, axes in zip(self.layers, _axes(self.layers), strict=True)
        )

    compiled = property(lambda self: self.runner)
    recurrent = property(lambda self: self.stateful)
    features_in = property(lambda self: self.signature.features_in)
    dtype = property(lambda self: self.signature.dtype)

    def check_steps(self, where: str, name: str, x: object, leading: Sequence[int | str]) -> Array:
        """x as an array (*leading, features), or (*leading,) of tokens; of them "T" is any size.

        (T,) of numbers is (T, 1) where the layers take one feature and there are no rows.
        """
        x = check_array(where, name, x)
        shape = [*leading]
        if not self.signature.takes_tokens:
            shape.append("I" if self.signature.features_in is None else self.signature.features_in)
        may_be_flat = shape == ["T", 1] and not self.signature.takes_tokens
        if x.shape == (0,) and shape[:1] in ([0], ["T"]) and "I" not in shape:
            # An empty list has neither columns nor a kind of numbers.
            sizes = [0, *map(int, shape[1:])]
            x = np.zeros(sizes, np.intp if self.signature.takes_tokens else np.float64)
        elif may_be_flat and x.ndim == 1:
            x = x[:, None]
        fits = x.ndim == len(shape) and all(
            size == n or size == "T" or (size == "I" and n > 0)
            for size, n in zip(shape, x.shape, strict=True)
        )
        if not fits:
            text = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
            expected = f"{name} of shape {text}{' or (T,)' if may_be_flat else ''}"
            raise ValueError(message(where, expected, f"{x.shape}"))
        return x

    def plain(self, where: str, name: str, x: Array) -> Array:
        """Checked rows as the compiled chain takes them; or raise, where a token is out of range."""
        if self.signature.tokens is not None:
            x = check_tokens(where, x, self.signature.tokens, name)
        return as_plain(x, np.dtype(np.intp) if self.signature.takes_tokens else self.signature.dtype)

    def check_state(self, where: str, state: StateLike, batch_size: int | None) -> list[Floats]:
        """The arrays of a state, of all recurrent layers in order, as compiled code takes them."""
        return [
            as_plain(array, layer.signature.dtype)
            for layer, part in zip(self.stateful, self.split_state(where, state), strict=True)
            for array in check_state(where, part, layer.signature.state_shapes(batch_size))
        ]

    def pack_state(self, arrays: Sequence[list[Floats]]) -> State | None:
        """The arrays of each recurrent layer as the model returns its state."""
        return self.nest_state(array for part in arrays for array in part)

    def out_shape(self, x: Array) -> tuple[int, ...]:
        """The shape of what comes of rows."""
        leading = x.shape if self.signature.takes_tokens else x.shape[:-1]
        return (*leading, x.shape[-1] if self.signature.features_out is None else self.signature.features_out)

    def out_dtype(self, x: Array) -> np.dtype[Any]:
        """The dtype of what comes of rows: that of the rows where no layer has one."""
        if self.signature.dtype is not None:
            return self.signature.dtype
        return x.dtype if x.dtype in (np.float32, np.float64) else np.dtype(np.float32)

    def check_out(self, where: str, out: Floats, x: Array) -> Array:
        """out as a plain array, if what comes of x can be written there."""
        return check_out(where, out, self.out_shape(x), self.out_dtype(x), [x])

    def run(self, where: str, x: Array, states: Sequence[list[Floats]], out: Array | None) -> Array:
        """Call one layer after the other: x (T, ...), the states in place. Without rows none is called."""
        if not x.size:
            return np.empty(self.out_shape(x), self.out_dtype(x)) if out is None else out
        parts = [layer.pack_state(arrays) for layer, arrays in zip(self.stateful, states, strict=True)]
        y, after = self.run_each(where, x, parts)
        for arrays, state in zip(states, after, strict=True):
            for array, value in zip(arrays, state if isinstance(state, tuple) else (state,), strict=True):
                array[...] = value
        if out is None:
            return np.array(y, self.out_dtype(x)) if y is x else y
        out[...] = y
        return out


def is_foreign(layer: Any) -> bool:
    """Whether a subclass outside the package computes in its own way."""
    owner = next(cls for cls in type(layer).__mro__ if "__call__" in vars(cls))
    return not owner.__module__.startswith("fastrnn.")


def _check_given(where: str, layer: Any, x: Array, y: object) -> Array:
    """What somebody else's layer made of x (..., features), if it is as many rows of what it says to give."""
    y = check_array(where, f"what {_name_of(layer)} gives", y)
    features = layer.signature.features_out
    if features is None:
        features = y.shape[-1] if layer.signature.takes_tokens and y.ndim else x.shape[-1]
    shape = (*(x.shape if layer.signature.takes_tokens else x.shape[:-1]), features)
    if y.shape != shape:
        hint = "Its features_out says how many features it gives; None: as many as it takes."
        expected = f"{_name_of(layer)} to give an array of shape {shape}"
        raise ValueError(message(where, expected, f"{y.shape}", hint))
    return y


def _name_of(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _axes(layers: Sequence[LayerLike]) -> Iterator[int]:
    """How many axes a batch of whole sequences has before each layer: 3, and 2 after Last."""
    axes = 3
    for layer in layers:
        yield axes
        if layer.signature.gives_last:
            axes = 2


def _of_last_axis(layer: Any, axes: int) -> Any:
    """The layer, its softmax over the last axis by the name -1; or raise."""
    dim = -1 if is_foreign(layer) else getattr(layer, "dim", -1)
    if dim == -1:
        return layer
    if dim != axes - 1:
        hint = "In a stream the axes before the last depend on how it is cut."
        raise ValueError(message("Stream", f"dim=-1 or {axes - 1}", f"{layer!r}", hint))
    return type(layer)(-1)
