"""Models of files and torch modules: load, verify, from_torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastrnn.backends import pick_backend
from fastrnn.errors import (
    BACKENDS,
    FormatError,
    check_choice,
    check_flag,
    check_precision,
    check_threads,
    join,
    message,
)
from fastrnn.importers import FileLike, Source, StateDict, load_state_dict
from fastrnn.importers.architecture import module_paths, read_architecture, taken_for_granted
from fastrnn.importers.expression import read_layers
from fastrnn.importers.torch_module import read_module
from fastrnn.layers import Last
from fastrnn.model import LAYERS, Sequential, build, nest_state
from fastrnn.saving import SavedModel, is_saved, read_model
from fastrnn.selftest import ACTIVATIONS, Comparison, compare, compare_example, fits_golden
from fastrnn.spec import GATES, GRANTED, LayerSpec

# The files whose want of a comparison was told already.
_told: set[object] = set()


class Verification(Comparison):
    """What the tests of a file give: the self-test's, and those of its example from torch.

    `passed` is for both, `self_test_passed` for the first. `example` is None where the file has none, so that
    the model was never compared with torch's output; `taken_for_granted` is then what no state dict told.
    """

    self_test_passed: bool
    example: Comparison | None
    taken_for_granted: list[str] | None


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
    if is_saved(state_dict) and model.taken_for_granted is not None:
        _tell_once(source, state_dict, model)
    return model


def _tell_once(source: Source, state_dict: StateDict, model: Sequential) -> None:
    # Of content in memory the place says nothing: its own texts and test do.
    content = state_dict.metadata["fastrnn"], state_dict["golden.output"].tobytes()
    place = hash(content) if source.path is None else os.path.realpath(source.path)
    if place not in _told:
        _told.add(place)
        told = what_is_open(model.taken_for_granted, "example.output" in state_dict)
        warnings.warn(f"{source.where}: {told} `fastrnn verify` compares.", stacklevel=3)


def what_is_open(granted: Iterable[str] | None, has_example: bool) -> str:
    """What is told of a model whose example from torch, or the want of one, leaves something open."""
    words = [GRANTED[name] for name in granted or ()]
    if has_example:
        text = "Its example from torch fits other choices too. Still taken for granted"
        return f"{text}: {join(words)}." if words else ""
    text = "This model was never compared with torch's output."
    return f"{text} Taken for granted: {join(words)}." if words else text


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
    model = build(specs, precision, threads, backend)
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
) -> tuple[Sequential, list[str]]:
    """Make the model of a state dict whose layers a text gives; see `importers.expression`.

    ``batch_first`` and ``nonlinearity`` are those of recurrent layers for which the text gives none.

    Returns
    -------
    model : Sequential
    unused : list of str
        The paths of the modules that the text does not name.
    """
    if is_saved(state_dict):
        raise ValueError(
            message(source.where, "a state dict beside layers", "a saved model, which has its own")
        )
    defaults = {"batch_first": batch_first, "nonlinearity": nonlinearity}
    specs, paths = read_layers(
        text,
        state_dict,
        {kind: cls.option_names for kind, cls in LAYERS.items()},
        [kind for kind, cls in LAYERS.items() if cls.needs_weights],
        {name: value for name, value in defaults.items() if value is not None},
    )
    model = build(specs, precision, threads, backend)
    model.taken_for_granted = _not_said(specs)
    return model, [path for path in sorted(module_paths(state_dict)) if path not in paths]


def _not_said(specs: Sequence[LayerSpec]) -> tuple[str, ...]:
    """What is taken for granted of layers that somebody wrote down: what they do not say."""
    recurrent = [spec for spec in specs if spec.kind in GATES]
    kinds = {spec.kind for spec in specs}
    is_open = {
        "time_first": any("batch_first" not in spec.options for spec in recurrent),
        "every_step": bool(recurrent) and "Last" not in kinds,
        "no_activations": not kinds & ACTIVATIONS.keys(),
    }
    return tuple(name for name in GRANTED if is_open[name])


def with_last(model: Sequential) -> Sequential:
    """The model with a `Last` after its last recurrent layer."""
    layers = list(model.layers)
    places = [index for index, layer in enumerate(layers) if layer.is_recurrent]
    if not places or any(layer.is_last_step for layer in layers):
        got = "one without" if not places else "one that has Last already"
        raise ValueError(message("--last", "a model with a recurrent layer and no Last", got))
    result = Sequential(*layers[: places[-1] + 1], Last(), *layers[places[-1] + 1 :])
    granted = model.taken_for_granted
    result.taken_for_granted = None if granted is None else tuple(n for n in granted if n != "every_step")
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
        example = None
        if saved.example is not None:
            state = None if saved.example.state is None else nest_state(model, saved.example.state)
            example = compare_example(model, replace(saved.example, state=state), build)
    except ValueError as error:  # a layer takes no such input, as a softmax over an axis too many
        raise FormatError(
            message(where, "a model that takes its self-test", f"one that does not ({error})")
        ) from error
    return {
        **result,
        "passed": result["passed"] and (example is None or example["passed"]),
        "self_test_passed": result["passed"],
        "example": example,
        "taken_for_granted": None if saved.taken_for_granted is None else list(saved.taken_for_granted),
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
    model = build(specs, precision, threads, backend)
    return model if type(module).__name__ == "Sequential" else model.layers[0]


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
        return build(saved.specs, precision, threads, backend)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise FormatError(message(where, "layers that can be made", f"one that cannot ({error})")) from error


def _read_saved(where: str, state_dict: StateDict) -> SavedModel:
    return read_model(where, state_dict, {kind: cls.option_names for kind, cls in LAYERS.items()})
