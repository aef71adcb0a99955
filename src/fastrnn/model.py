"""Whole models: Sequential, and the one file that keeps a model and its own test."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fastrnn.backends import pick_backend
from fastrnn.chain import chain_features, check_layers, join_state, output_dtype, split_state
from fastrnn.errors import (
    BACKENDS,
    Array,
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
from fastrnn.files import replacing
from fastrnn.importers import StateDict, load_state_dict
from fastrnn.importers.architecture import read_architecture
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
from fastrnn.reference import sequential_reference
from fastrnn.spec import LayerSpec
from fastrnn.streaming import Stream

LAYERS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        RNN, GRU, LSTM, Embedding, OneHot, Linear, LayerNorm, Last, Dropout, ReLU, Tanh, Sigmoid,
        Softmax, LogSoftmax,
    )
}  # fmt: skip
FILE_VERSION = 1
GOLDEN_SEED = 20240229
GOLDEN_STEPS = 12
GOLDEN_ROWS = 2
# How far an output may be from its float64 reference: this share of the largest value, and as often
# what the reference itself moves when every weight is rounded to the next number, up or down.
GOLDEN_SHARE = {"float32": 1e-5, "float64": 1e-11}
GOLDEN_ROUNDINGS = 32


class Comparison(TypedDict):
    """What a self-test gives: the errors are absolute, `values` is how many were compared."""

    passed: bool
    largest_error: float
    tolerance: float
    values: int


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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one safetensors file: tensors, architecture, and a self-test.

        The self-test is a seeded input and the output that the NumPy reference gives for it in
        float64; ``fastrnn verify`` runs it again. The model has to pass it before anything is
        written, and the file appears whole or not at all.

        Raises
        ------
        RuntimeError
            The engine and the reference disagree on this machine.
        OSError
            The file cannot be written.
        """
        specs = [layer.spec() for layer in self.layers]
        tensors = {}
        for index, spec in enumerate(specs):
            for name, array in spec.tensors.items():
                tensors[f"layers.{index}.{name}"] = array
        golden = self._golden_input()
        wanted, tolerance = self._golden_output(specs, golden)
        tensors["golden.input"], tensors["golden.output"] = golden, wanted
        result = self.compare(golden, wanted, tolerance)
        if not result["passed"]:
            expected = f"the reference's output within {result['tolerance']:.3g}"
            raise RuntimeError(message("save", expected, f"one {result['largest_error']:.3g} away"))
        description = {
            "version": FILE_VERSION,
            "tolerance": tolerance,
            "layers": [{"kind": spec.kind, "options": dict(spec.options)} for spec in specs],
        }
        with replacing(os.fspath(path)) as draft:
            try:
                save_file(tensors, draft, {"fastrnn": json.dumps(description)})
            except SafetensorError as error:  # which is no OSError, though the disk is full
                raise OSError(message("save", "room to write in", str(error))) from error

    def _golden_shape(self) -> tuple[int, ...]:
        """That of the input of a self-test."""
        shape = (GOLDEN_ROWS, GOLDEN_STEPS) if self.batch_first else (GOLDEN_STEPS, GOLDEN_ROWS)
        return shape if self.layers[0].takes_tokens else (*shape, self.features_in or 4)

    def _golden_input(self) -> Array:
        """A seeded input of this model: normal numbers, or tokens."""
        random = np.random.default_rng(GOLDEN_SEED)
        shape = self._golden_shape()
        if self.layers[0].takes_tokens:
            return random.integers(self.layers[0].num_tokens, size=shape)
        return random.standard_normal(shape)

    def fits_golden(self, golden: Array | None, wanted: Array | None) -> bool:
        """Whether two arrays of a file (or None) can be a self-test of this model."""
        if golden is None or wanted is None:
            return False
        example = self._golden_shape()
        shape = [*example[:2], self.features_out or example[-1]]
        if any(layer.is_last_step for layer in self.layers):
            del shape[1 if self.batch_first else 0]
        return (
            golden.shape == example
            and golden.dtype == (np.int64 if self.layers[0].takes_tokens else np.float64)
            and wanted.shape == tuple(shape)
            and wanted.dtype == np.float64
        )

    def _golden_output(self, specs: list[LayerSpec], golden: Array) -> tuple[NDArray[np.float64], float]:
        """The reference's output for an input, and how far this model's may be from it."""
        wanted = np.ascontiguousarray(sequential_reference(specs, golden, self.batch_first))
        random = np.random.default_rng(GOLDEN_SEED)
        moved = []
        for spec in specs:
            tensors = {
                name: array * (1 + np.finfo(array.dtype).eps * random.choice((-0.5, 0.5), array.shape))
                for name, array in spec.tensors.items()
            }
            moved.append(LayerSpec(spec.kind, spec.options, tensors))
        with np.errstate(over="ignore", invalid="ignore"):
            movement = np.abs(sequential_reference(moved, golden, self.batch_first) - wanted)
        finite = np.isfinite(wanted) & np.isfinite(movement)
        scale = np.abs(wanted[finite]).max(initial=1.0)
        share = GOLDEN_SHARE["float64" if self._dtype == np.float64 else "float32"]
        return wanted, float(share * scale + GOLDEN_ROUNDINGS * movement[finite].max(initial=0.0))

    def compare(self, golden: Array, wanted: NDArray[np.float64], tolerance: float) -> Comparison:
        """Run the input of a self-test and compare the output with the one that is wanted.

        Returns
        -------
        dict
            passed (bool), largest_error and tolerance (absolute), values (how many were compared).
        """
        output, _ = self(golden)
        with np.errstate(over="ignore"):
            wanted = wanted.astype(output.dtype).astype(np.float64)
        finite = np.isfinite(wanted)
        same = np.array_equal(output[~finite], wanted[~finite], equal_nan=True)
        error = np.abs(output[finite] - wanted[finite]).max(initial=0.0)
        return {
            "passed": bool(same and error <= tolerance),
            "largest_error": float(error),
            "tolerance": tolerance,
            "values": int(wanted.size),
        }

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Sequential, self.layers


# ---------------------------------------------------------------- files and modules to models


def load(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Load a model: a file that `save` wrote, or a state dict whose architecture is plain.

    Plain is one recurrent module, or an Embedding before it and a Linear behind it, run on every
    step. A state dict tells neither activations nor the layout nor whether only the last step
    counts: a model that has more than these layers is written out as a Sequential.

    Parameters
    ----------
    path : str or path
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

    Raises
    ------
    OSError
        The file is not there or cannot be read.
    FormatError
        The file is damaged, hostile or of no known kind.
    WeightError
        What the layers of the state dict do is not plain: the message shows the Sequential to
        write.
    ValueError
        A saved model was given an option that its file holds, or an option has a wrong value.
    TypeError
        An option is of a wrong kind.
    """
    where = os.path.basename(os.fspath(path))
    return make_model(
        where,
        load_state_dict(path, key),
        batch_first=batch_first,
        nonlinearity=nonlinearity,
        precision=precision,
        threads=threads,
        backend=backend,
    )


def make_model(
    where: str,
    state_dict: StateDict,
    *,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Make the model of a state dict that was read already; see `load`."""
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
        specs, _, _ = _read_saved(where, state_dict)
        return _build_saved(where, specs, precision, threads, backend)
    specs = read_architecture(where, state_dict, bool(batch_first), nonlinearity)
    return _build(specs, precision, threads, backend)


def is_saved(state_dict: StateDict) -> bool:
    """Whether `save` wrote the file that it was read from."""
    return "fastrnn" in state_dict.metadata


def verify(path: str | os.PathLike[str]) -> Comparison:
    """Run the self-test of a file that `save` wrote.

    Returns
    -------
    dict
        passed (bool), largest_error and tolerance (absolute), values (how many were compared).

    Raises
    ------
    FormatError
        The file is damaged, or no model that `save` wrote.
    """
    where = os.path.basename(os.fspath(path))
    state_dict = load_state_dict(path)
    if not is_saved(state_dict):
        hint = "fastrnn convert makes one of a state dict."
        raise FormatError(message(where, "a model that fastrnn saved", state_dict.file_format, hint))
    specs, golden, tolerance = _read_saved(where, state_dict)
    model = _build_saved(where, specs)
    if not model.fits_golden(golden.get("input"), golden.get("output")):
        raise FormatError(message(where, "a self-test of this model", "another, or none"))
    try:
        return model.compare(golden["input"], golden["output"], tolerance)
    except ValueError as error:  # a layer takes no such input, as a softmax over an axis too many
        raise FormatError(
            message(where, "a model that takes its self-test", f"one that does not ({error})")
        ) from error


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
    specs: Iterable[LayerSpec],
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    # What the caller or the environment asks for is not the file's fault.
    pick_backend("load", backend, np.float32, threads)
    try:
        return _build(specs, precision, threads, backend)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise FormatError(message(where, "layers that can be made", f"one that cannot ({error})")) from error


def _read_saved(where: str, state_dict: StateDict) -> tuple[list[LayerSpec], dict[str, Array], float]:
    """The LayerSpecs of a saved model, and the arrays and the tolerance of its self-test."""
    try:
        description = json.loads(state_dict.metadata["fastrnn"])
        version, entries = description["version"], description["layers"]
        tolerance = check_number(where, "tolerance", description["tolerance"])
        if version != FILE_VERSION:
            hint = "It was written by another release of fastrnn."
            raise FormatError(message(where, f"version {FILE_VERSION}", brief(version), hint))
        parts: dict[str, dict[str, Array]] = {
            "golden": {},
            **{f"layers.{index}": {} for index in range(len(entries))},
        }
        for name, array in state_dict.items():
            path, _, key = name.rpartition(".")
            parts[path][key] = array
        specs = []
        for index, entry in enumerate(entries):
            kind, options = entry["kind"], entry["options"]
            if kind not in LAYERS:
                raise FormatError(message(where, "layers of fastrnn", brief(kind)))
            strange = [brief(name) for name in options if name not in LAYERS[kind].option_names]
            if strange:
                raise FormatError(message(where, f"options of {kind}", join(strange)))
            specs.append(LayerSpec(kind, options, parts[f"layers.{index}"]))
    except FormatError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        raise FormatError(message(where, "the description of a saved model", got)) from error
    return specs, parts["golden"], tolerance
