"""Whole models: Sequential, and how one is made from specifications."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Floats, State, StateLike
from fastrnn.checks import Precision, check_array, check_lengths, check_path, check_tolerance
from fastrnn.errors import brief, join, message
from fastrnn.layers import Conv1d, Layer, RecurrentLayer
from fastrnn.layers.cells import RecurrentCell
from fastrnn.layers.registry import make_layers, specs_of
from fastrnn.operators.chain import Chain, join_state
from fastrnn.program.self_test import compare_example, golden_input, undecided
from fastrnn.saving.golden import (
    Comparison,
    Example,
    compare,
    disagreement,
    golden_output,
    narrow_storages,
    warn_of_dropped,
)
from fastrnn.saving.model_file import SavedModel, write_model
from fastrnn.spec import LayerSpec
from fastrnn.streaming.pool import StreamPool
from fastrnn.streaming.stream import Stream

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Sequential:
    """A whole model: layers that run one after the other.

    ``y, state = model(x, state, lengths=...)``. With one recurrent layer, the state is that layer's. With
    several it is a tuple of their states, in order. With none it is None. A causal `Conv1d` has a state too.

    Parameters
    ----------
    *layers : Layer or Sequential
        The layers in order. A Sequential stands for its layers.

    Attributes
    ----------
    layers : tuple of layers
    signature : Signature
        What the model takes, returns and keeps as state.
    features_in : int or None
        The size of the last axis of the input. None: any size, or the model takes tokens.
    features_out : int or None
        The size of the last axis of the output. None: that of the input.
    batch_first : bool
        x and y have shape (B, T, ...) instead of (T, B, ...).
    taken_for_granted : tuple of str or None
        The assumptions of a model that was made from a state dict alone and not yet compared with torch's
        output: "time_first", "every_step", "no_activations". No state dict records them. `save` keeps
        them in the file. None: the layers were written out, or the model was compared.
    example : Example or None
        The example from torch in the file that the model was loaded from. `save` keeps it.

    Raises
    ------
    ValueError
        There is no layer, or a cell. Or a layer takes another number of features than the one before it
        gives. Or a layer that takes tokens is not the first, a layer over time follows Last, or layers differ
        in ``batch_first``.
    TypeError
        An argument is not a layer of fastrnn.

    Examples
    --------
    >>> model = fastrnn.Sequential(
    ...     fastrnn.Embedding.from_state_dict(sd, "embedding"),
    ...     fastrnn.LSTM.from_state_dict(sd, "lstm", batch_first=True),
    ...     fastrnn.Last(),
    ...     fastrnn.Linear.from_state_dict(sd, "fc"),
    ... )
    """

    def __init__(self, *layers: Layer | Sequential) -> None:
        flat: list[Layer] = []
        for layer in layers:
            if not isinstance(layer, (Layer, Sequential)):
                raise TypeError(message("Sequential", "layers of fastrnn", brief(layer)))
            if isinstance(layer, RecurrentCell):
                hint = f"A Sequential runs whole sequences: fastrnn.{layer.kind} takes a cell's weights."
                raise ValueError(message("Sequential", "layers over sequences", f"{layer!r}", hint))
            flat += layer.layers if isinstance(layer, Sequential) else [layer]
        self._chain = Chain("Sequential", flat)
        self.layers: tuple[Layer, ...] = tuple(flat)
        self.signature = self._chain.signature
        self.features_in, self.features_out = self.signature.features_in, self.signature.features_out
        layouts = {layer.batch_first for layer in flat if isinstance(layer, (RecurrentLayer, Conv1d))}
        if len(layouts) > 1:
            got = "both"
            raise ValueError(message("Sequential", "one batch_first for all layers", got))
        self.batch_first = layouts == {True}
        self.taken_for_granted: tuple[str, ...] | None = None
        self.example: Example | None = None
        # The precision is not that of the example's file, so that the example may not agree any more.
        self._is_recast = False

    def __call__(
        self, x: ArrayLike, state: StateLike = None, *, lengths: ArrayLike | None = None
    ) -> tuple[Floats, State | None]:
        """Run the model over whole sequences.

        Parameters
        ----------
        x : array-like
            The input of the first layer, of shape (T, B, I), or (B, T, I) if the recurrent layers have
            ``batch_first``. (T, I) is one unbatched sequence. Tokens are integers and have no I axis.
        state : state or tuple of states, optional
            The initial state, in the form that the call returns. If not given: zeros, or what was learned.
        lengths : B integers, optional
            The number of time steps of each row, from 1 to T, as in the recurrent layers and Last.

        Returns
        -------
        y : ndarray
            Of shape (T, B, features), (B, T, features) or, unbatched, (T, features). After Last it is
            (B, features) or (features,). Its dtype is that of the last layer that has one.
        state : state, tuple of states, or None
            The final state.

        Raises
        ------
        ValueError
            A shape, a token, a length or the number of states does not fit.
        TypeError
            An argument does not hold real numbers, or tokens or lengths are not integers.
        """
        runner = self._chain.runner
        if runner is not None:
            plain = runner.call(x, state, None, lengths, self.batch_first)
            if plain is not None:
                return plain
        before = self._chain.split_state("Sequential", state)
        if lengths is not None:
            lengths = self._check_lengths(x, lengths)
        y, after = self._chain.run_each(x, before, lengths, self.batch_first)
        return y, join_state(after)

    def _check_lengths(self, x: ArrayLike, lengths: ArrayLike) -> NDArray[np.intp]:
        """Check the lengths before any layer runs, and return them as an array."""
        shape = check_array("Sequential", "x", x).shape
        axes = shape[: None if self.signature.takes_tokens else -1]
        if len(axes) != 2:
            raise ValueError(message("Sequential", "a batch beside lengths", f"x of shape {shape}"))
        T, B = axes[::-1] if self.batch_first else axes
        return check_lengths("Sequential", lengths, T, B)

    def stream(self, batch_size: int | None = None) -> Stream:
        """Return a `Stream` of the whole model.

        ``batch_size`` and errors are those of `fastrnn.Stream`.
        """
        return Stream(self.layers, batch_size)

    def pool(self, capacity: int = 256) -> StreamPool:
        """Return a `StreamPool` of the whole model.

        ``capacity`` and errors are those of `fastrnn.StreamPool`.
        """
        return StreamPool(self.layers, capacity)

    def save(
        self, path: str | os.PathLike[str], example: Any = None, *, tolerance: float | None = None
    ) -> None:
        """Write the model to one safetensors file: its weights, its architecture and a self-test.

        The self-test is a seeded input with its output, computed by the NumPy reference in float64.
        ``fastrnn verify`` runs it again. It shows that a machine computes what the weights say. It does not
        show that the layers are those of the torch module: only an example shows that. Nothing is written
        unless the model passes the self-test, and the example if there is one. The file appears whole or
        not at all.

        Parameters
        ----------
        path : str or path
            The file to write.
        example : (x, y), (x, y, state), (x, y, state, lengths), or a dict with those names, optional
            An input, and the output of torch's module in ``eval()`` for it, as in `verify`. The file keeps
            them. If not given, it keeps the example of the file that the model was loaded from.
        tolerance : float, optional
            The largest absolute difference allowed from the example's output, as in `verify`. The file
            keeps it.

        Warns
        -----
        UserWarning
            The model was loaded at another precision than its file's, and the output there differs from the
            example of the file, which is not kept then.

        Raises
        ------
        ValueError
            The model's output differs from the example's. The message names a change that would make
            them agree, if one was found. Or a layer does not take the input, or ``tolerance`` does not fit.
        RuntimeError
            The engine and the reference disagree on this machine.
        TypeError
            ``example`` has none of these forms, or does not hold real numbers. Or a layer is of a subclass,
            which no file can hold.
        OSError
            The file cannot be written.
        """
        path = check_path("save", path)
        specs = specs_of("save", self.layers)
        if tolerance is not None:
            tolerance = check_tolerance("save", tolerance)
        kept = self.example if example is None else self._example(example, tolerance)
        granted = self.taken_for_granted
        if kept is not None:
            result = compare_example(self, kept, build)
            if not result["passed"] and example is None and self._is_recast:
                warn_of_dropped(result, join(narrow_storages(specs) or [self._precision]))
                kept = None
            elif not result["passed"]:
                raise disagreement(result, "output")
        if kept is not None and example is not None:
            granted = undecided(self, kept, granted or (), build) or None
        x = golden_input(self)
        output = self(x)[0]  # first, since layers have messages and the reference has none
        wanted, tolerance = golden_output(specs, x, self.batch_first, self._precision)
        test = compare(output, wanted, tolerance)
        if not test["passed"]:
            expected = f"the reference's output within {test['tolerance']:.3g}"
            got = f"one {test['largest_error']:.3g} away"
            raise RuntimeError(message("save", expected, got, test["hint"]))
        write_model(path, SavedModel(specs, x, wanted, tolerance, kept, granted))

    def verify(
        self,
        x: ArrayLike | None = None,
        y: ArrayLike | None = None,
        state: StateLike = None,
        *,
        lengths: ArrayLike | None = None,
        tolerance: float | None = None,
    ) -> Comparison:
        """Compare the model's output with that of torch's module.

        Without x and y, compare it with the NumPy reference on the seeded input of the self-test.

        Parameters
        ----------
        x : array-like, optional
            The input, as a call takes it.
        y : array-like, optional
            The output of torch's module in ``eval()`` for x. Its shape may differ from the model's in axes
            of size 1.
        state : state, optional
            The initial state, as a call takes it.
        lengths : B integers, optional
            The number of time steps of each row, as a call takes them.
        tolerance : float, optional
            The largest absolute difference allowed. If not given, it is 1e-5 of the largest value (1e-11
            in float64), and more for a model that amplifies rounding or has narrow weights.

        Returns
        -------
        dict
            ``passed`` : bool. ``largest_error`` and ``tolerance`` : float, absolute; the error is NaN if one
            output has a number where the other has NaN or infinity. ``values`` : int, the number of values
            compared. ``hint`` : str, where outputs are not finite, and a change that would make them agree
            (another layout, ``Last``, an activation), or "" if they agree or nothing was found.

        Raises
        ------
        ValueError
            Only one of x and y is given, or x, ``lengths``, ``state`` or ``tolerance`` does not fit.
        TypeError
            An argument does not hold real numbers, or a layer is of a subclass, of which no reference is
            known.
        """
        specs = specs_of("verify", self.layers)
        if x is None and y is None:
            golden = golden_input(self)
            output = self(golden)[0]  # first, since layers have messages and the reference has none
            wanted, allowed = golden_output(specs, golden, self.batch_first, self._precision)
            return compare(output, wanted, allowed)
        return compare_example(self, self._example((x, y, state, lengths), tolerance), build)

    @property
    def _precision(self) -> str:
        return "float64" if self.signature.dtype == np.float64 else "float32"

    def _example(self, example: Any, tolerance: float | None = None) -> Example:
        """Check an example as a user gave it, and return it as an Example."""
        names = ("x", "y", "state", "lengths")
        if isinstance(example, Mapping) and {"x", "y"} <= example.keys() <= set(names):
            example = [example.get(name) for name in names]
        if not isinstance(example, (tuple, list)) or not 2 <= len(example) <= 4:
            expected = "example to be (x, y), (x, y, state) or (x, y, state, lengths)"
            raise TypeError(message("Sequential", expected, brief(example)))
        x, y, state, lengths = (*example, None, None)[:4]
        if x is None or y is None:
            raise ValueError(message("Sequential", "x and y together", f"no {'x' if x is None else 'y'}"))
        x, y = (np.ascontiguousarray(check_array("Sequential", n, a)) for n, a in (("x", x), ("y", y)))
        if lengths is not None:
            lengths = self._check_lengths(x, lengths)
        if state is not None:
            self._chain.split_state("Sequential", state)
        if tolerance is not None:
            tolerance = check_tolerance("Sequential", tolerance)
        return Example(x, y, state, lengths, tolerance)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.layers, self.taken_for_granted, self.example, self._is_recast)


def _restore(
    layers: tuple[Layer, ...],
    granted: tuple[str, ...] | None,
    example: Example | None = None,
    is_recast: bool = False,
) -> Sequential:
    model = Sequential(*layers)
    model.taken_for_granted, model.example, model._is_recast = granted, example, is_recast
    return model


def nest_state(model: Sequential, arrays: Sequence[Floats]) -> State | None:
    """Return the state of a model from a flat list of arrays: h and c of the first recurrent layer first.

    Raises
    ------
    ValueError
        The number of arrays is not that of the model's state.
    """
    count = len(model.signature.states)
    if len(arrays) != count:
        raise ValueError(message("Sequential", f"a state of {count} arrays", f"{len(arrays)}"))
    return model._chain.nest_state(arrays)


def build(
    specs: Iterable[LayerSpec],
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Make a model from specifications.

    ``precision`` replaces the one in the specifications. None keeps it.
    """
    return Sequential(*make_layers(specs, precision, threads, backend))
