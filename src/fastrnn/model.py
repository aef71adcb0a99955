"""Whole models: Sequential, and what makes one of a file or a torch module."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.backends import pick_backend
from fastrnn.chain import chain_features, check_layers, join_state, output_dtype, split_state
from fastrnn.errors import (
    BACKENDS,
    Floats,
    FormatError,
    State,
    StateLike,
    brief,
    check_array,
    check_choice,
    check_flag,
    check_lengths,
    check_number,
    check_precision,
    check_threads,
    join,
    message,
)
from fastrnn.importers import FileLike, Source, StateDict, load_state_dict
from fastrnn.importers.architecture import read_architecture, taken_for_granted
from fastrnn.importers.expression import read_layers
from fastrnn.importers.torch_module import read_module
from fastrnn.layers import (
    GRU,
    LSTM,
    RNN,
    Dropout,
    Embedding,
    Last,
    Layer,
    LayerNorm,
    Linear,
    LogSoftmax,
    OneHot,
    RecurrentLayer,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from fastrnn.pool import StreamPool
from fastrnn.saving import SavedModel, is_saved, read_model, write_model
from fastrnn.selftest import (
    Comparison,
    Example,
    compare,
    compare_example,
    fits_golden,
    golden_input,
    golden_output,
)
from fastrnn.spec import LayerSpec
from fastrnn.streaming import Stream

LAYERS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        RNN, GRU, LSTM, Embedding, OneHot, Linear, LayerNorm, Last, Dropout, ReLU, Tanh, Sigmoid,
        Softmax, LogSoftmax,
    )
}  # fmt: skip
# The files whose want of a comparison was told already.
_told: set[str] = set()


class Verification(Comparison):
    """What the tests of a file give: the self-test's, and those of its example from torch.

    `passed` is for both, `self_test_passed` for the first. `example` is None where the file has none, so that
    the model was never compared with torch's output; `taken_for_granted` is then what no state dict told.
    """

    self_test_passed: bool
    example: Comparison | None
    taken_for_granted: list[str]


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
    features_in, features_out : int or None
        The last axis of what it takes and gives. None in: any, or tokens; None out: as it came in.
    batch_first : bool
    taken_for_granted : tuple of str
        Of a model that was read off a state dict and never compared with torch's output: what no state
        dict tells, as "time first". A saved model keeps it.

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
        self.layers: tuple[Layer, ...] = check_layers("Sequential", flat)
        self._recurrent = cast(
            "tuple[RecurrentLayer[State], ...]", tuple(layer for layer in flat if layer.is_recurrent)
        )
        self.features_in, self.features_out = chain_features("Sequential", flat)
        self._dtype = output_dtype(flat)
        layouts = {layer.batch_first for layer in self._recurrent}
        if len(layouts) > 1:
            got = "both"
            raise ValueError(message("Sequential", "one batch_first for all layers", got))
        self.batch_first = layouts == {True}
        self.taken_for_granted: tuple[str, ...] = ()

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
            (B, T, features) or unbatched (T, features). Behind Last (B, features) or (features,).
        state : state, tuple of states, or None

        Raises
        ------
        ValueError
            A shape, a token, a length or the number of states does not fit.
        TypeError
            An argument does not hold real numbers (of tokens and lengths: whole ones).
        """
        before = iter(split_state("Sequential", self._recurrent, state))
        if lengths is not None:
            lengths = self._check_lengths(x, lengths)
        behind = []
        y: Any = x
        for layer in self.layers:
            if layer.is_recurrent:
                y, after = layer(y, next(before), lengths=lengths)
                behind.append(after)
            elif layer.is_last_step:
                y = layer(y, lengths=lengths, batch_first=self.batch_first)
            else:
                y = layer(y)
        return y, join_state(behind)

    def _check_lengths(self, x: ArrayLike, lengths: ArrayLike) -> NDArray[np.intp]:
        """The lengths, checked before any layer runs."""
        shape = check_array("Sequential", "x", x).shape
        axes = shape[: None if self.layers[0].takes_tokens else -1]
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

    def save(self, path: str | os.PathLike[str], example: Any = None) -> None:
        """Write the model to one safetensors file: tensors, architecture, and a self-test.

        The self-test is a seeded input and the output that the NumPy reference gives for it in
        float64; ``fastrnn verify`` runs it again. The model has to pass it before anything is
        written, and the file appears whole or not at all. It shows that a machine computes what the
        weights say. That the layers are those of the torch module only an example shows.

        Parameters
        ----------
        path : str or path
        example : (x, y), (x, y, state) or (x, y, state, lengths), optional
            An input, and the output that torch's module in ``eval()`` gave for it; see `verify`. The file
            keeps them beside its self-test, and the model has to agree before anything is written.

        Raises
        ------
        ValueError
            The model does not give the example's output; the message says what would agree, if that is
            found.
        RuntimeError
            The engine and the reference disagree on this machine.
        TypeError
            ``example`` is no such tuple, or does not hold real numbers.
        OSError
            The file cannot be written.
        """
        kept = None if example is None else self._example(example)
        if kept is not None:
            result = self._compare_example(kept)
            if not result["passed"]:
                expected = f"the example's output within {result['tolerance']:.3g}"
                got = f"one {result['largest_error']:.3g} away"
                raise ValueError(message("save", expected, got, result["hint"]))
        specs = [layer.spec() for layer in self.layers]
        x = golden_input(self)
        wanted, tolerance = golden_output(specs, x, self.batch_first, self._precision)
        test = compare(self(x)[0], wanted, tolerance)
        if not test["passed"]:
            expected = f"the reference's output within {test['tolerance']:.3g}"
            raise RuntimeError(message("save", expected, f"one {test['largest_error']:.3g} away"))
        granted = () if kept is not None else self.taken_for_granted
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
        if tolerance is not None:
            tolerance = check_number("verify", "tolerance", tolerance)
        return self._compare_example(self._example((x, y, state, lengths)), tolerance)

    @property
    def _precision(self) -> str:
        return "float64" if self._dtype == np.float64 else "float32"

    def _example(self, example: Any) -> Example:
        """An example of checked arrays; or raise."""
        expected = "example to be (x, y), (x, y, state) or (x, y, state, lengths)"
        if not isinstance(example, (tuple, list)) or not 2 <= len(example) <= 4:
            raise TypeError(message("Sequential", expected, brief(example)))
        x, y, state, lengths = (*example, None, None)[:4]
        if x is None or y is None:
            raise ValueError(message("Sequential", "x and y together", f"no {'x' if x is None else 'y'}"))
        x, y = (np.ascontiguousarray(check_array("Sequential", n, a)) for n, a in (("x", x), ("y", y)))
        if lengths is not None:
            lengths = self._check_lengths(x, lengths)
        if state is not None:
            split_state("Sequential", self._recurrent, state)
        return Example(x, y, state, lengths)

    def nest_state(self, arrays: Sequence[Floats]) -> State | None:
        """The state of arrays in order: h, c of the first recurrent layer, and so on.

        Raises
        ------
        ValueError
            There are more or fewer than the layers have.
        """
        counts = [len(layer.shape.state_shapes(None)) for layer in self._recurrent]
        if len(arrays) != sum(counts):
            raise ValueError(message("Sequential", f"a state of {sum(counts)} arrays", f"{len(arrays)}"))
        rest = iter(arrays)
        return join_state([layer.pack_state([next(rest) for _ in range(n)])
                           for layer, n in zip(self._recurrent, counts, strict=True)])  # fmt: skip

    def _nested(self, example: Example) -> Example:
        """An example as a file keeps it, its state as a call takes it."""
        return example if example.state is None else replace(example, state=self.nest_state(example.state))

    def _compare_example(self, example: Example, tolerance: float | None = None) -> Comparison:
        return compare_example(self, example, _build, tolerance)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.layers, self.taken_for_granted)


def _restore(layers: tuple[Layer, ...], granted: tuple[str, ...]) -> Sequential:
    model = Sequential(*layers)
    model.taken_for_granted = granted
    return model


# ---------------------------------------------------------------- files and modules to models


def load(
    file: FileLike,
    *,
    key: str | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Load a model: a file that `save` wrote, or a state dict whose architecture is plain.

    Plain is one recurrent module, or an Embedding before it and a Linear after it, run on every
    step. A state dict tells neither activations nor the layout nor whether only the last step
    counts: a model that has more than these layers is written out as a Sequential.

    Parameters
    ----------
    file : path, bytes, or file open for reading bytes
        Of a model in several files the folder, or its ``*.index.json``.
    key : str, optional
        Where the state dict lies in the file; see `load_state_dict`.
    batch_first : bool, optional
        The layout, which no state dict tells; False if not given.
    nonlinearity : {"tanh", "relu"}, optional
        That of an RNN, which no state dict tells.
    precision : {"float32", "float64"}, optional
        As the file was saved; "float32" for a state dict.
    threads : int, optional
    backend : {"auto", "simd", "blas"}
        Both as in `LSTM.from_state_dict`.

    Returns
    -------
    Sequential

    Warns
    -----
    UserWarning
        Once a file: the saved model was read off a state dict and never compared with torch's output.

    Raises
    ------
    OSError
        The file is not there or cannot be read.
    FormatError
        The file is damaged, hostile, of no known kind or a part of a model.
    WeightError
        What the layers of the state dict do is not plain: the message shows the Sequential to
        write. Or a tensor could not be read.
    ValueError
        A saved model was given an option that its file holds, or an option has a wrong value.
    TypeError
        An option is of a wrong kind.
    """
    source = Source(file)
    state_dict = load_state_dict(source, key)
    model = make_model(
        source,
        state_dict,
        batch_first=batch_first,
        nonlinearity=nonlinearity,
        precision=precision,
        threads=threads,
        backend=backend,
    )
    if is_saved(state_dict) and model.taken_for_granted:
        _tell_once(source, model)
    return model


def _tell_once(source: Source, model: Sequential) -> None:
    place = os.path.realpath(source.path) if source.path is not None else source.where
    if place not in _told:
        _told.add(place)
        told = never_compared(model.taken_for_granted)
        warnings.warn(f"{source.where}: {told} `fastrnn verify` compares.", stacklevel=3)


def never_compared(granted: Iterable[str]) -> str:
    """What is told of a model without an example."""
    text = "This model was never compared with torch's output."
    granted = list(granted)
    return f"{text} Taken for granted: {join(granted)}." if granted else text


def make_model(
    source: Source,
    state_dict: StateDict,
    *,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Make the model of a state dict that was read already; see `load`."""
    where = source.where
    if precision is not None:
        check_precision(where, precision)
    if batch_first is not None:
        check_flag(where, "batch_first", batch_first)
    check_threads(where, threads)
    check_choice(where, "backend", backend, BACKENDS)
    if is_saved(state_dict):
        for name, value in (("batch_first", batch_first), ("nonlinearity", nonlinearity)):
            if value is not None:
                got = f"{name}={value!r}"
                raise ValueError(message(where, "no options that the saved model holds", got))
        saved = _read_saved(where, state_dict)
        model = _build_saved(where, saved, precision, threads, backend)
        model.taken_for_granted = saved.taken_for_granted
        return model
    specs = read_architecture(source, state_dict, bool(batch_first), nonlinearity)
    model = _build(specs, precision, threads, backend)
    model.taken_for_granted = taken_for_granted(batch_first)
    return model


def make_written(
    source: Source,
    state_dict: StateDict,
    text: str,
    *,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Make the model of a state dict whose layers a text gives; see `importers.expression`.

    ``batch_first`` and ``nonlinearity`` are those of recurrent layers for which the text gives none.
    """
    if is_saved(state_dict):
        raise ValueError(
            message(source.where, "a state dict beside layers", "a saved model, which has its own")
        )
    defaults = {"batch_first": batch_first, "nonlinearity": nonlinearity}
    specs = read_layers(
        text,
        state_dict,
        {kind: cls.option_names for kind, cls in LAYERS.items()},
        [kind for kind, cls in LAYERS.items() if cls.needs_weights],
        {name: value for name, value in defaults.items() if value is not None},
    )
    return _build(specs, precision, threads, backend)


def with_last(model: Sequential) -> Sequential:
    """The model with a `Last` after its last recurrent layer."""
    layers = list(model.layers)
    places = [index for index, layer in enumerate(layers) if layer.is_recurrent]
    if not places or any(layer.is_last_step for layer in layers):
        got = "one without" if not places else "one that has Last already"
        raise ValueError(message("--last", "a model with a recurrent layer and no Last", got))
    result = Sequential(*layers[: places[-1] + 1], Last(), *layers[places[-1] + 1 :])
    result.taken_for_granted = tuple(
        text for text in model.taken_for_granted if text != "an output for every step"
    )
    return result


def verify(file: FileLike) -> Verification:
    """Run the tests of a file that `save` wrote: its self-test, and its example from torch if it has one.

    Returns
    -------
    dict
        passed (bool, for both), largest_error and tolerance (absolute), values (how many were compared) and
        hint of the self-test; the same of the example under ``example``, None where there is none; and
        ``taken_for_granted``.

    Raises
    ------
    FormatError
        The file is damaged, or no model that `save` wrote.
    """
    source = Source(file)
    where = source.where
    state_dict = load_state_dict(source)
    if not is_saved(state_dict):
        hint = "fastrnn convert makes one of a state dict."
        raise FormatError(message(where, "a model that fastrnn saved", state_dict.file_format, hint))
    saved = _read_saved(where, state_dict)
    model = _build_saved(where, saved)
    x, y = saved.golden_input, saved.golden_output
    if x is None or y is None or not fits_golden(model, x, y):
        raise FormatError(message(where, "a self-test of this model", "another, or none"))
    try:
        result = compare(model(x)[0], y, saved.tolerance)
        example = None if saved.example is None else model._compare_example(model._nested(saved.example))
    except ValueError as error:  # a layer takes no such input, as a softmax over an axis too many
        raise FormatError(
            message(where, "a model that takes its self-test", f"one that does not ({error})")
        ) from error
    return {
        **result,
        "passed": result["passed"] and (example is None or example["passed"]),
        "self_test_passed": result["passed"],
        "example": example,
        "taken_for_granted": list(saved.taken_for_granted),
    }


def from_torch(
    module: Any, *, precision: str | None = None, threads: int | None = None, backend: str = "auto"
) -> Any:
    """Make the layer or model of a live torch.nn module.

    Parameters
    ----------
    module : torch.nn.Module
        RNN, GRU, LSTM or their cells, Linear, Embedding, LayerNorm, a dropout, an activation, or
        a Sequential of them.
    precision : {"float32", "float64"}, optional
        That of the module's weights if not given.
    threads : int, optional
    backend : {"auto", "simd", "blas"}
        Both as in `LSTM.from_state_dict`.

    Returns
    -------
    A layer; of a torch Sequential, a Sequential.

    Raises
    ------
    TypeError
        The module, or one inside it, is of another class; a subclass counts as such.
    ValueError
        A module has an option that no layer here has, or an option of the call a wrong value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/nn.html
    """
    specs = read_module(module)
    model = _build(specs, precision, threads, backend)
    return model if type(module).__name__ == "Sequential" else model.layers[0]


def _build(
    specs: Iterable[LayerSpec],
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    layers = []
    for spec in specs:
        options = dict(spec.options)
        cls = LAYERS[spec.kind]
        if precision is not None and (spec.tensors or "precision" in options):
            options["precision"] = precision
        runtime: dict[str, Any] = {}
        if cls.has_backend:
            runtime = {"threads": threads, "backend": backend}
        layers.append(cls.from_spec(LayerSpec(spec.kind, options, spec.tensors), **runtime))
    return Sequential(*layers)


def _build_saved(
    where: str,
    saved: SavedModel,
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    # What the caller or the environment asks for is not the file's fault.
    pick_backend("load", backend, np.float32, threads)
    try:
        return _build(saved.specs, precision, threads, backend)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise FormatError(message(where, "layers that can be made", f"one that cannot ({error})")) from error


def _read_saved(where: str, state_dict: StateDict) -> SavedModel:
    return read_model(where, state_dict, {kind: cls.option_names for kind, cls in LAYERS.items()})
