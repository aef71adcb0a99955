"""Whole models: Sequential, and what makes one of specifications."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.arrays import Floats, State, StateLike
from fastrnn.checks import check_array, check_lengths, check_number, check_path
from fastrnn.errors import brief, message
from fastrnn.layers import (
    Layer,
)
from fastrnn.layers.registry import make_layers
from fastrnn.operators.chain import Chain, join_state
from fastrnn.program.self_test import compare_example, golden_input, undecided
from fastrnn.saving.golden import Comparison, Example, compare, golden_output
from fastrnn.saving.model_file import SavedModel, write_model
from fastrnn.spec import LayerSpec
from fastrnn.streaming.pool import StreamPool
from fastrnn.streaming.stream import Stream


class Sequential:
    """Layers one after the other: a whole model.

    ``y, state = model(x, state, lengths=...)``. The state is that of the one recurrent layer, a
    tuple of them in order where there are several, and None where there is none.

    Parameters
    ----------
    *layers : layers, or Sequentials of them

    Attributes
    ----------
    layers : tuple of layers
    signature : Signature
        What it takes, gives and keeps.
    features_in, features_out : int or None
        The last axis of what it takes and gives. None in: any, or tokens; None out: as it came in.
    batch_first : bool
    taken_for_granted : tuple of str or None
        Of a model that was read off a state dict and never compared with torch's output, what no state dict
        tells: "time_first", "every_step", "no_activations". A saved model keeps it. None: the model was
        written out, or compared.

    Raises
    ------
    ValueError
        Two neighbours do not fit: the features of one are not those that the next one takes. Or
        there is no layer, a layer of tokens is not the first, a layer over time follows Last, or
        the recurrent layers differ in ``batch_first``.
    TypeError
        An argument is no layer of fastrnn.

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
            flat += layer.layers if isinstance(layer, Sequential) else [layer]
        self._chain = Chain("Sequential", flat)
        self.layers: tuple[Layer, ...] = self._chain.layers
        self.signature = self._chain.signature
        self.features_in, self.features_out = self.signature.features_in, self.signature.features_out
        layouts = {layer.batch_first for layer in self._chain.stateful}
        if len(layouts) > 1:
            got = "both"
            raise ValueError(message("Sequential", "one batch_first for all layers", got))
        self.batch_first = layouts == {True}
        self.taken_for_granted: tuple[str, ...] | None = None

    def __call__(
        self, x: ArrayLike, state: StateLike = None, *, lengths: ArrayLike | None = None
    ) -> tuple[Floats, State | None]:
        """Run the model over whole sequences.

        Parameters
        ----------
        x : array-like
            Shaped as the first layer takes it: (T, B, I), or (B, T, I) where the recurrent layers
            have ``batch_first``, or unbatched (T, I); tokens have no last axis.
        state : state or tuple of states, optional
            As the call returns it; zeros if not given.
        lengths : B integers, optional
            The time steps of each row; see the recurrent layers and Last.

        Returns
        -------
        y : ndarray of the dtype of the last layer that has one
            Shaped as x is, its last axis that of the last layer's features: (T, B, features),
            (B, T, features) or unbatched (T, features). After Last: (B, features) or (features,).
        state : state, tuple of states, or None

        Raises
        ------
        ValueError
            A shape, a token, a length or the number of states does not fit.
        TypeError
            An argument does not hold real numbers (of tokens and lengths: whole ones).
        """
        runner = self._chain.runner
        if runner is not None:
            plain = runner.call(x, state, None, lengths, self.batch_first)
            if plain is not None:
                return plain
        before = self._chain.split_state("Sequential", state)
        if lengths is not None:
            lengths = self._check_lengths(x, lengths)
        y, after = self._chain.run_each("Sequential", x, before, lengths, self.batch_first)
        return y, join_state(after)

    def _check_lengths(self, x: ArrayLike, lengths: ArrayLike) -> NDArray[np.intp]:
        """The lengths, checked before any layer runs."""
        shape = check_array("Sequential", "x", x).shape
        axes = shape[: None if self.signature.takes_tokens else -1]
        if len(axes) != 2:
            raise ValueError(message("Sequential", "a batch beside lengths", f"x of shape {shape}"))
        T, B = axes[::-1] if self.batch_first else axes
        return check_lengths("Sequential", lengths, T, B)

    def stream(self, batch_size: int | None = None) -> Stream:
        """A Stream of the whole model; see `fastrnn.Stream` for ``batch_size`` and errors."""
        return Stream(self.layers, batch_size)

    def pool(self, capacity: int = 256) -> StreamPool:
        """A StreamPool of this model; see `fastrnn.StreamPool` for ``capacity`` and errors."""
        return StreamPool(self.layers, capacity)

    def save(
        self, path: str | os.PathLike[str], example: Any = None, *, tolerance: float | None = None
    ) -> None:
        """Write the model to one safetensors file: tensors, architecture, and a self-test.

        The self-test is a seeded input and the output that the NumPy reference gives for it in
        float64; ``fastrnn verify`` runs it again. The model has to pass it before anything is
        written, and the file appears whole or not at all. It shows that a machine computes what the
        weights say. That the layers are those of the torch module only an example shows.

        Parameters
        ----------
        path : str or path
        example : (x, y), (x, y, state), (x, y, state, lengths), or a dict with those names, optional
            An input, and the output that torch's module in ``eval()`` gave for it; see `verify`. The file
            keeps them beside its self-test, and the model has to agree before anything is written.
        tolerance : float, optional
            How far the model may be from the example's output; see `verify`. The file keeps it.

        Raises
        ------
        ValueError
            The model does not give the example's output; the message says what would agree, if that is
            found.
        RuntimeError
            The engine and the reference disagree on this machine.
        TypeError
            ``example`` is none of these, or does not hold real numbers.
        OSError
            The file cannot be written.
        """
        path = check_path("save", path)
        kept = None if example is None else self._example(example, tolerance)
        granted = self.taken_for_granted
        if kept is not None:
            result = compare_example(self, kept, build)
            if not result["passed"]:
                error = result["largest_error"]
                expected = f"the example's output within {result['tolerance']:.3g}"
                got = f"one {error:.3g} away"
                if not np.isfinite(error):
                    expected, got = "an output of the example's shape", "another one"
                raise ValueError(message("save", expected, got, result["hint"]))
            granted = undecided(self, kept, granted or (), build) or None
        specs = [layer.spec() for layer in self.layers]
        x = golden_input(self)
        wanted, tolerance = golden_output(specs, x, self.batch_first, self._precision)
        test = compare(self(x)[0], wanted, tolerance)
        if not test["passed"]:
            expected = f"the reference's output within {test['tolerance']:.3g}"
            raise RuntimeError(message("save", expected, f"one {test['largest_error']:.3g} away"))
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
        """Compare what the model gives with what torch's module gave; or, without x, with the reference.

        Parameters
        ----------
        x : array-like
            As a call takes it.
        y : array-like
            The output of torch's module in ``eval()`` for x. Axes of one may be missing or more.
        state : state, optional
            The initial one, as a call takes it.
        lengths : B integers, optional
        tolerance : float, optional
            How far the outputs may be from each other, as an absolute number. If not given: 1e-5 of the
            largest value (in float64 1e-11), and more where a model amplifies rounding.

        Returns
        -------
        dict
            passed (bool), largest_error and tolerance (absolute), values (how many were compared), hint
            (what would agree, where the outputs do not: another layout, ``Last``, an activation).

        Raises
        ------
        ValueError, TypeError
            x and y are not given together, or an argument does not hold real numbers.
        """
        if x is None and y is None:
            specs = [layer.spec() for layer in self.layers]
            golden = golden_input(self)
            wanted, allowed = golden_output(specs, golden, self.batch_first, self._precision)
            return compare(self(golden)[0], wanted, allowed)
        return compare_example(self, self._example((x, y, state, lengths), tolerance), build)

    @property
    def _precision(self) -> str:
        return "float64" if self.signature.dtype == np.float64 else "float32"

    def _example(self, example: Any, tolerance: float | None = None) -> Example:
        """An example of checked arrays; or raise."""
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
            tolerance = check_number("Sequential", "tolerance", tolerance)
        return Example(x, y, state, lengths, tolerance)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.layers, self.taken_for_granted)


def _restore(layers: tuple[Layer, ...], granted: tuple[str, ...] | None) -> Sequential:
    model = Sequential(*layers)
    model.taken_for_granted = granted
    return model


def nest_state(model: Sequential, arrays: Sequence[Floats]) -> State | None:
    """The state of a model, of arrays in order: h, c of the first recurrent layer, and so on.

    Raises
    ------
    ValueError
        There are more or fewer than the layers have.
    """
    count = len(model.signature.states)
    if len(arrays) != count:
        raise ValueError(message("Sequential", f"a state of {count} arrays", f"{len(arrays)}"))
    return model._chain.nest_state(arrays)


def build(
    specs: Iterable[LayerSpec],
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Make the model of LayerSpecs; precision None: as they say."""
    return Sequential(*make_layers(specs, precision, threads, backend))
