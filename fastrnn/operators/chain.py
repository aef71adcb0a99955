"""Layers that follow one another: whether they fit, their signature as a whole, and how they run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike
from fastrnn.checks import check_array
from fastrnn.errors import brief, message
from fastrnn.operators.operator import Operator
from fastrnn.operators.runner import Runner
from fastrnn.operators.signature import Signature, Trait


class LayerLike(Protocol):
    """What a chain needs of a layer. The class, `layers.base.Layer`, is above this module."""

    __call__: ClassVar[Callable[..., Any]]

    @property
    def signature(self) -> Signature: ...

    def operator(self, dtype: np.dtype[Any]) -> Operator | None: ...


class StatefulLike(LayerLike, Protocol):
    """What a chain needs of a layer that has a state."""

    batch_first: bool
    dtype: np.dtype[Any]

    def pack_state(self, states: list[Floats]) -> State: ...

    def with_state(self, x: Any, state: StateLike, lengths: Any) -> tuple[Array, State]: ...

    def run(
        self, x: Any, state: StateLike, out: Floats | None, lengths: Any, batch_first: bool
    ) -> tuple[Floats, State]: ...


class Chain:
    """Layers that follow one another, checked.

    Attributes
    ----------
    layers : tuple of layers
    stateful : list of layers
        The layers that have a state, in order.
    signature : Signature
        The signature of the chain as a whole. Its states are named "state0", "state1" and so on.
    runner : Runner or None
        It runs the whole chain in compiled code. None: the layers have to be called one by one.

    Raises
    ------
    TypeError
        The layers are not a sequence of layers.
    ValueError
        There is no layer, or two neighbours do not fit.
    """

    idle_traits = frozenset({Trait.IDENTITY})  # of layers that give what they take

    def __init__(self, where: str, layers: Iterable[LayerLike]) -> None:
        self.layers = _check_layers(where, layers)
        self.stateful = [cast("StatefulLike", layer) for layer in self.layers if layer.signature.states]
        self.signature = _signature(where, self.layers)

    @functools.cached_property
    def runner(self) -> Runner | None:
        """The runner of the chain, if every layer has an operator and all have the same dtype."""
        moving = [
            layer
            for layer in self.layers
            if layer.signature.trait not in self.idle_traits or is_foreign(layer)
        ]
        dtypes = {dtype for layer in moving if (dtype := layer.signature.dtype) is not None}
        # Before the first layer with a dtype, rows keep the input's dtype, which is not known here.
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
        """Return one state for each stateful layer. The argument is None, one state, or a tuple of states."""
        count = len(self.stateful)
        if state is None:
            return [None] * count
        if count == 1:
            return [state]
        if not isinstance(state, (tuple, list)) or len(state) != count:
            got = f"{len(state)}" if isinstance(state, (tuple, list)) else type(state).__name__
            expected = f"a tuple of {count} states" if count else "no state"
            raise ValueError(message(where, expected, got, "One for each layer with a state, in order."))
        return list(state)

    def initial_arrays(self, batch_size: int | None) -> list[Floats]:
        """Return the arrays (layers, B, columns) of the state in which calls and streams begin.

        With ``batch_size`` None they are (layers, columns).
        """
        arrays: list[Floats] = []
        for layer in self.stateful:
            learned = getattr(layer, "initial", ())
            for index, shape in enumerate(layer.signature.state_shapes(batch_size).values()):
                array: Floats = np.zeros(shape, layer.dtype)
                if learned:
                    array[...] = learned[index] if batch_size is None else learned[index][:, None]
                arrays.append(array)
        return arrays

    def nest_state(self, arrays: Iterable[Floats]) -> State | None:
        """Return the state of the chain from its arrays in order."""
        rest = iter(arrays)
        states: list[State] = [
            layer.pack_state([next(rest) for _ in layer.signature.states]) for layer in self.stateful
        ]
        return join_state(states)

    def run_each(
        self,
        x: Any,
        states: Sequence[StateLike],
        lengths: Array | None = None,
        batch_first: bool = False,
    ) -> tuple[Array, list[State]]:
        """Call the layers one by one on whole sequences, and return the last output and all final states.

        x and lengths are as the caller gave them. The layers check them.
        """
        after = []
        for _, y, state in self.each_output(x, states, lengths, batch_first):  # noqa: B007 - the last y counts
            if state is not None:
                after.append(state)
        return y, after

    def each_output(
        self,
        x: Any,
        states: Sequence[StateLike],
        lengths: Array | None = None,
        batch_first: bool = False,
    ) -> Iterator[tuple[LayerLike, Array, State | None]]:
        """Call the layers one by one, as `run_each` does. Yield each with its output and its final state.

        The state is None where the layer has none.
        """
        before = iter(states)
        for layer in self.layers:
            state = None
            if layer.signature.states:
                x, state = cast("StatefulLike", layer).with_state(x, next(before), lengths)
            elif layer.signature.gives_last:
                x = layer(x, lengths=lengths, batch_first=batch_first)
            elif lengths is not None and layer.signature.trait is Trait.WHOLE:
                x = layer(x, lengths=lengths)
            else:
                x = layer(x)
            yield layer, x, state


def join_state(states: Sequence[State]) -> State | None:
    """Join states as users see them: None if there is none, the one state, or a tuple of several."""
    return None if not states else states[0] if len(states) == 1 else tuple(states)


def _check_layers(where: str, layers: Iterable[LayerLike]) -> tuple[LayerLike, ...]:
    """Return the layers as a tuple. Only the first may take tokens, none over time may follow Last, and
    FinalState follows a bidirectional layer."""
    if not isinstance(layers, Iterable):
        raise TypeError(message(where, "layers in a sequence", brief(layers)))
    layers = tuple(layers)
    if not layers:
        raise ValueError(message(where, "at least one layer", "none"))
    is_over = has_both = False
    before = ""
    for index, layer in enumerate(layers):
        if not isinstance(getattr(layer, "signature", None), Signature) or not callable(layer):
            raise TypeError(message(where, "layers of fastrnn", brief(layer)))
        at = f"{where}: layer {index}, {layer!r}"
        if layer.signature.takes_tokens and index:
            raise ValueError(message(at, "layers of tokens first", "one further on"))
        if is_over and (layer.signature.states or layer.signature.gives_last):
            raise ValueError(message(at, "an input with time steps", f"what {before} gives"))
        if getattr(layer, "after_both_directions", False) and not has_both:
            raise ValueError(
                message(at, "a bidirectional layer before it", "none", "Last takes the last step.")
            )
        if layer.signature.states:
            has_both = getattr(layer, "bidirectional", False)
        elif layer.signature.features_out is not None:
            has_both = False
        if layer.signature.gives_last:
            is_over, before = True, type(layer).__name__
    return layers


def _signature(where: str, layers: Sequence[LayerLike]) -> Signature:
    """Return the signature of the layers as a whole, or raise if two neighbours do not fit."""
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


def is_foreign(layer: LayerLike) -> bool:
    """Return whether the layer has a ``__call__`` from outside this package."""
    owner = next(cls for cls in type(layer).__mro__ if "__call__" in vars(cls))
    return not owner.__module__.startswith("fastrnn.")


def check_given(where: str, layer: LayerLike, x: Array, y: object) -> Array:
    """Return the output y of a foreign layer as an array, or raise if its shape is not what x leads to.

    It must have as many rows as x, and the features that the layer's signature promises.
    """
    y = check_array(where, f"what {name_of(layer)} gives", y)
    features = layer.signature.features_out
    if features is None:
        features = y.shape[-1] if layer.signature.takes_tokens and y.ndim else x.shape[-1]
    shape = (*(x.shape if layer.signature.takes_tokens else x.shape[:-1]), features)
    if y.shape != shape:
        hint = "Its features_out says how many features it gives; None: as many as it takes."
        expected = f"{name_of(layer)} to give an array of shape {shape}"
        raise ValueError(message(where, expected, f"{y.shape}", hint))
    return y


def name_of(layer: LayerLike) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"
