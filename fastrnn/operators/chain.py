"""Chains of layers: whether they fit, the states of those that have one, and how streams run them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike, as_plain
from fastrnn.checks import check_array, check_out, check_state, check_tokens
from fastrnn.errors import brief, message
from fastrnn.operators.runner import Chain

# A layer as it is seen from below: by its attributes alone (`layers.base.Layer`).
LayerLike: TypeAlias = Any


def split_state(where: str, layers: Sequence[LayerLike], state: StateLike) -> list[StateLike]:
    """The state of each recurrent layer, out of the state of a model: one, or a tuple of them."""
    if state is None:
        return [None] * len(layers)
    if len(layers) == 1:
        return [state]
    if not isinstance(state, (tuple, list)) or len(state) != len(layers):
        got = f"{len(state)}" if isinstance(state, (tuple, list)) else type(state).__name__
        expected = f"a tuple of {len(layers)} states" if layers else "no state"
        raise ValueError(message(where, expected, got, "One for each recurrent layer, in order."))
    return list(state)


def join_state(states: Sequence[State]) -> State | None:
    """The state of a model: None, that of its one recurrent layer, or a tuple of them."""
    return None if not states else states[0] if len(states) == 1 else tuple(states)


def check_layers(where: str, layers: Iterable[LayerLike]) -> tuple[LayerLike, ...]:
    """The layers as a tuple, if they may follow one another: tokens first, nothing over time behind Last."""
    if not isinstance(layers, Iterable):
        raise TypeError(message(where, "layers in a sequence", brief(layers)))
    layers = tuple(layers)
    if not layers:
        raise ValueError(message(where, "at least one layer", "none"))
    is_over = False
    for index, layer in enumerate(layers):
        if not hasattr(layer, "takes_tokens") or not callable(layer):
            raise TypeError(message(where, "layers of fastrnn", brief(layer)))
        at = f"{where}: layer {index}, {layer!r}"
        if layer.takes_tokens and index:
            raise ValueError(message(at, "layers of tokens first", "one further on"))
        if is_over and (layer.is_recurrent or layer.is_last_step):
            raise ValueError(message(at, "an input with time steps", "what Last gives"))
        is_over = is_over or layer.is_last_step
    return layers


def chain_features(where: str, layers: Sequence[LayerLike]) -> tuple[int | None, int | None]:
    """The features that a chain of layers takes and gives (None: any); or raise, if two do not fit."""
    taken: int | None = None
    given: int | None = None
    for index, layer in enumerate(layers):
        if layer.features_in is not None and given not in (None, layer.features_in):
            got = f"{given} from the layer before"
            raise ValueError(
                message(f"{where}: layer {index}, {layer!r}", f"{layer.features_in} features", got)
            )
        if given is None and taken is None:
            taken = layer.features_in
        given = given if layer.features_out is None else layer.features_out
    return taken, given


def output_dtype(layers: Sequence[LayerLike]) -> np.dtype[np.floating[Any]] | None:
    """The dtype that a chain gives: that of the last layer which has one; None: as it came in."""
    dtypes = [layer.dtype for layer in layers if hasattr(layer, "dtype")]
    return dtypes[-1] if dtypes else None


class StreamLayers:
    """The layers of a stream or a pool: checked once, and compiled into a chain where they can be.

    Raises
    ------
    ValueError
        There is no layer, or one needs the whole sequence.
    """

    compiled: Chain | None

    def __init__(self, where: str, layers: Sequence[LayerLike]) -> None:
        layers = check_layers(where, layers)
        # Any, since is_recurrent tells them apart and no type does.
        self.layers: list[Any] = [
            _of_last_axis(layer, axes) for layer, axes in zip(layers, _axes(layers), strict=True)
        ]
        self.recurrent = [layer for layer in layers if layer.is_recurrent]
        for layer in self.recurrent:
            if _is_foreign(layer):
                hint = "A stream cannot call it, since a step keeps its state."
                raise TypeError(message(where, "recurrent layers of fastrnn", _name_of(layer), hint))
            if layer.bidirectional:
                hint = "Its reverse direction begins at the end of the sequence: run it whole."
                raise ValueError(message(where, "layers that run forward", f"{layer!r}", hint))
        self.takes_tokens = layers[0].takes_tokens
        self.features_in, self.features_out = chain_features(where, layers)
        self.dtype = output_dtype(layers)
        self.compiled = self._compile()

    def _compile(self) -> Chain | None:
        """The chain in compiled code; None where a layer has to be called, or the types of layers differ."""
        moving = [layer for layer in self.layers if not layer.passes_on or _is_foreign(layer)]
        dtypes = {layer.dtype for layer in moving if hasattr(layer, "dtype")}
        # Whatever comes before the first weights is of the input's own type.
        if not moving or len(dtypes) != 1 or not hasattr(moving[0], "dtype"):
            return None
        links = []
        for layer in moving:
            link = None if _is_foreign(layer) else layer.link(*dtypes)
            if link is None:
                return None
            links.append(link)
        return Chain(links)

    def check_steps(self, where: str, name: str, x: object, leading: Sequence[int | str]) -> Array:
        """x as an array (*leading, features), or (*leading,) of tokens; of them "T" is any size.

        (T,) of numbers is (T, 1) where the layers take one feature and there are no rows.
        """
        x = check_array(where, name, x)
        shape = [*leading]
        if not self.takes_tokens:
            shape.append("I" if self.features_in is None else self.features_in)
        may_be_flat = shape == ["T", 1] and not self.takes_tokens
        if x.shape == (0,) and shape[:1] in ([0], ["T"]) and "I" not in shape:
            # An empty list has neither columns nor a kind of numbers.
            sizes = [0, *map(int, shape[1:])]
            x = np.zeros(sizes, np.intp if self.takes_tokens else np.float64)
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
        if self.takes_tokens:
            x = check_tokens(where, x, self.layers[0].num_tokens, name)
        return as_plain(x, np.dtype(np.intp) if self.takes_tokens else self.dtype)

    def check_state(self, where: str, state: StateLike, batch_size: int | None) -> list[Floats]:
        """The arrays of a state, of all recurrent layers in order, as compiled code takes them."""
        return [
            as_plain(array, layer.dtype)
            for layer, part in zip(self.recurrent, split_state(where, self.recurrent, state), strict=True)
            for array in check_state(where, part, layer.shape.state_shapes(batch_size))
        ]

    def pack_state(self, arrays: Sequence[list[Floats]]) -> State | None:
        """The arrays of each recurrent layer as the model returns its state."""
        return join_state(
            [layer.pack_state(part) for layer, part in zip(self.recurrent, arrays, strict=True)]
        )

    def out_shape(self, x: Array) -> tuple[int, ...]:
        """The shape of what comes of rows."""
        leading = x.shape if self.takes_tokens else x.shape[:-1]
        return (*leading, x.shape[-1] if self.features_out is None else self.features_out)

    def out_dtype(self, x: Array) -> np.dtype[Any]:
        """The dtype of what comes of rows: that of the rows where no layer has one."""
        if self.dtype is not None:
            return self.dtype
        return x.dtype if x.dtype in (np.float32, np.float64) else np.dtype(np.float32)

    def check_out(self, where: str, out: Floats, x: Array) -> Array:
        """out as a plain array, if what comes of x can be written there."""
        return check_out(where, out, self.out_shape(x), self.out_dtype(x), [x])

    def run(self, where: str, x: Array, states: Sequence[list[Floats]], out: Array | None) -> Array:
        """Call one layer after the other: x (T, ...), the states in place. Without rows none is called."""
        if not x.size:
            return np.empty(self.out_shape(x), self.out_dtype(x)) if out is None else out
        rest, given = iter(states), x
        for index, layer in enumerate(self.layers):
            if not layer.is_recurrent:
                before = x
                x = x if layer.is_last_step else layer(x)
                if _is_foreign(layer):
                    x = _check_given(where, layer, before, x)
                continue
            x = as_plain(x, layer.dtype)
            if out is None or index < len(self.layers) - 1:
                y = np.empty((*x.shape[:-1], layer.features_out), layer.dtype)
            else:
                y = out
            arrays = next(rest)
            rows = arrays[0].shape[1] if arrays[0].ndim == 3 else 1
            layer.advance(x.reshape(len(x), rows, -1), arrays, y.reshape(len(x), rows, -1))
            x = y
        if out is None:
            return x if x is not given else np.array(x, self.out_dtype(x))
        if out is not x:
            out[...] = x
        return out


def _is_foreign(layer: Any) -> bool:
    """Whether a subclass outside the package computes in its own way."""
    owner = next(cls for cls in type(layer).__mro__ if "__call__" in vars(cls))
    return not owner.__module__.startswith("fastrnn.")


def _check_given(where: str, layer: Any, x: Array, y: object) -> Array:
    """What somebody else's layer made of x (..., features), if it is as many rows of what it says to give."""
    y = check_array(where, f"what {_name_of(layer)} gives", y)
    features = layer.features_out
    if features is None:
        features = y.shape[-1] if layer.takes_tokens and y.ndim else x.shape[-1]
    shape = (*(x.shape if layer.takes_tokens else x.shape[:-1]), features)
    if y.shape != shape:
        hint = "Its features_out says how many features it gives; None: as many as it takes."
        expected = f"{_name_of(layer)} to give an array of shape {shape}"
        raise ValueError(message(where, expected, f"{y.shape}", hint))
    return y


def _name_of(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _axes(layers: Sequence[LayerLike]) -> Iterator[int]:
    """How many axes a batch of whole sequences has before each layer: 3, and 2 behind Last."""
    axes = 3
    for layer in layers:
        yield axes
        if layer.is_last_step:
            axes = 2


def _of_last_axis(layer: Any, axes: int) -> Any:
    """The layer, its softmax over the last axis by the name -1; or raise."""
    dim = -1 if _is_foreign(layer) else getattr(layer, "dim", -1)
    if dim == -1:
        return layer
    if dim != axes - 1:
        hint = "In a stream the axes before the last depend on how it is cut."
        raise ValueError(message("Stream", f"dim=-1 or {axes - 1}", f"{layer!r}", hint))
    return type(layer)(-1)
