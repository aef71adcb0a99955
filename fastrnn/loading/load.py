"""`load`: a model from a file that `save` wrote, or from a state dict whose architecture is plain."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import (
    BACKENDS,
    Precision,
    check_choice,
    check_flag,
    check_precisions,
    check_threads,
)
from fastrnn.engine.backends import pick_backend
from fastrnn.errors import FormatError, brief, brief_error, join, message
from fastrnn.importers import FileLike, Source, StateDict, read_stored
from fastrnn.layers.registry import LAYERS
from fastrnn.narrow import STORAGES, NarrowWeight
from fastrnn.program.sequential import Sequential, build, nest_state
from fastrnn.saving.model_file import SavedModel, is_saved, read_model
from fastrnn.spec import GRANTED

if TYPE_CHECKING:
    from fastrnn.program.program import Program
    from fastrnn.saving.program_file import SavedProgram

# The files of which a warning already said that they were never compared with torch.
_warned: set[object] = set()


def load(
    file: FileLike,
    *,
    key: str | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Any:  # Sequential or Program: either has methods that the other lacks
    """Load a model from a file that `save` wrote, or from a state dict whose architecture is plain.

    Plain means one recurrent module, possibly with an Embedding before it and a Linear after it, which runs
    on every step. A state dict does not say which activations a model has, what its layout is, or whether
    only the last step counts. So a model with more than these layers has to be written out as a Sequential.

    Parameters
    ----------
    file : path, bytes, or file open for reading bytes
        For a model in several files, the folder or its ``*.index.json``.
    key : str, optional
        The state dict to read from the file; see `load_state_dict`.
    batch_first : bool, optional
        The layout, which a state dict does not say. False if not given.
    nonlinearity : {"tanh", "relu"}, optional
        That of an RNN, which a state dict does not say.
    precision : str or mapping of str to str, optional
        As in `LSTM.from_state_dict`. If not given, that of a saved model, and "float32" for a state dict. At
        "bfloat16" and "int8", weights that are not narrow yet become so. Layers without products (LayerNorm,
        BatchNorm1d, Scale, OneHot) compute in float32 then. A mapping is for recurrent layers. All others
        compute in float32 beside it. Of a program as in `Program`.
        "float32" and "float64" widen narrow weights, but do not bring back what rounding took away.
    threads : int, optional
        As in `LSTM.from_state_dict`.
    backend : {"auto", "simd", "blas"}
        As in `LSTM.from_state_dict`.

    Returns
    -------
    Sequential or Program
        A Program if `Program.save` wrote the file.

    Warns
    -----
    UserWarning
        Once for each file: the saved model was read from a state dict and never compared with torch's output.

    Raises
    ------
    OSError
        The file does not exist or cannot be read.
    FormatError
        The file is damaged, hostile, of no known kind, or only a part of a model.
    WeightError
        The architecture of the state dict is not plain; the message shows the Sequential to write. Or a
        tensor could not be read.
    ValueError
        An option was given that the file of a saved model holds already, or an option has a wrong value.
    TypeError
        An option is of the wrong type.
    """
    source = Source(file)
    state_dict = read_stored(source, key)
    if is_saved(state_dict) and _is_program(state_dict):
        options = {"key": key, "batch_first": batch_first, "nonlinearity": nonlinearity}
        return make_program(source, state_dict, options, precision, threads, backend)
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
        _warn_once(source, state_dict, model)
    return model


def _is_program(state_dict: StateDict) -> bool:
    from fastrnn.saving.program_file import is_program  # late: of no use to models of layers

    return is_program(state_dict)


def make_program(
    source: Source,
    state_dict: StateDict,
    others: Mapping[str, object] = {},
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Program:
    """Make the program of a file that is read already. ``others`` are options that no program has."""
    where = source.where
    for name, value in others.items():
        if value is not None:
            raise ValueError(message(where, "no options that the saved program holds", f"{name}={value!r}"))
    wanted = None if precision is None else set(check_precisions(where, precision).values())
    check_threads(where, threads)
    check_choice(where, "backend", backend, BACKENDS)
    saved = read_saved_program(where, state_dict)
    if wanted is None:
        weights = saved.spec.graph.constants.values()
        wanted = {weight.storage for weight in weights if isinstance(weight, NarrowWeight)}
    for storage in ("float32", *(storage for storage in STORAGES if storage in wanted)):
        pick_backend("load", backend, np.float32, threads, {"input": storage})
    return build_program(where, saved, precision, threads, backend)


def read_saved_program(where: str, state_dict: StateDict) -> SavedProgram:
    """Return what the file of a program holds. Raise FormatError if it is damaged."""
    from fastrnn.program.program import known_operators
    from fastrnn.saving.program_file import read_program

    return read_program(where, state_dict, known_operators())


def build_program(
    where: str,
    saved: SavedProgram,
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Program:
    """Make the program that a file holds, and no plan of it. Raise FormatError if it cannot be made."""
    from fastrnn.program.narrowing import has_narrow, precision_of
    from fastrnn.program.program import Program

    try:
        own: Precision = precision_of(saved.spec.graph)
        if saved.precision != own and (has_narrow(saved.spec.graph) or saved.precision is not None):
            got = f"weights of {brief(own)}"
            raise FormatError(message(where, f"weights of the precision {brief(saved.precision)}", got))
        program = Program(saved.spec, precision=precision, threads=threads, backend=backend)
    except FormatError:
        raise
    except (TypeError, LookupError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        got = f"one that cannot ({brief_error(error)})"
        raise FormatError(message(where, "a program that can be made", got)) from error
    program.golden_inputs = tuple(pair.inputs for pair in saved.golden)
    program.example = saved.example
    program._is_recast = program.precision != own
    return program


def make_model(
    source: Source,
    state_dict: StateDict,
    *,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Make the model of a state dict that is read already. The options and errors are those of `load`."""
    where = source.where
    if precision is not None:
        check_precisions(where, precision)
    if batch_first is not None:
        check_flag(where, "batch_first", batch_first)
    check_threads(where, threads)
    check_choice(where, "backend", backend, BACKENDS)
    if is_saved(state_dict):
        for name, value in (("batch_first", batch_first), ("nonlinearity", nonlinearity)):
            if value is not None:
                got = f"{name}={value!r}"
                raise ValueError(message(where, "no options that the saved model holds", got))
        saved = read_saved(where, state_dict)
        return build_saved(where, saved, precision, threads, backend)
    from fastrnn.importers.architecture import read_architecture, taken_for_granted

    specs = read_architecture(source, state_dict, bool(batch_first), nonlinearity)
    model = build(specs, precision, threads, backend)
    model.taken_for_granted = taken_for_granted(batch_first)
    return model


def read_saved(where: str, state_dict: StateDict) -> SavedModel:
    """Return what the file of a saved model holds. Raise FormatError if it is damaged."""
    return read_model(where, state_dict, {kind: cls.option_names for kind, cls in LAYERS.items()})


def build_saved(
    where: str,
    saved: SavedModel,
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Sequential:
    """Make the model that a file holds. Raise FormatError if its layers cannot be made."""
    # Raise first what is wrong with the caller's options or the environment. That is not the file's fault.
    for storage in ("float32", *_narrow_storages(saved, precision)):
        pick_backend("load", backend, np.float32, threads, {"input": storage})
    try:
        model = build(saved.specs, precision, threads, backend)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise FormatError(message(where, "layers that can be made", f"one that cannot ({error})")) from error
    model.taken_for_granted = saved.taken_for_granted
    model._is_recast = any(
        getattr(layer, "precision", None) != spec.options.get("precision", getattr(layer, "precision", None))
        for layer, spec in zip(model.layers, saved.specs, strict=True)
    )
    if saved.example is not None:
        try:
            state = None if saved.example.state is None else nest_state(model, saved.example.state)
        except ValueError as error:
            raise FormatError(message(where, "an example of this model", f"another ({error})")) from error
        model.example = saved.example._replace(state=state)
    return model


def _narrow_storages(saved: SavedModel, precision: Precision | None) -> list[str]:
    """Return the narrow storages that the products of a model have, at this precision or at its file's."""
    precisions: list[Any] = [
        spec.options.get("precision") if precision is None else precision
        for spec in saved.specs
        if LAYERS[spec.kind].has_backend
    ]
    found = [part for one in precisions for part in (one.values() if isinstance(one, Mapping) else [one])]
    return [storage for storage in STORAGES if storage in found]


def what_is_open(granted: Iterable[str] | None, has_example: bool) -> str:
    """Say what no example from torch has decided about a model, and what is therefore taken for granted."""
    words = [GRANTED[name] for name in granted or ()]
    if has_example:
        text = "Its example from torch fits other choices too. Still taken for granted"
        return f"{text}: {join(words)}." if words else ""
    text = "This model was never compared with torch's output."
    return f"{text} Taken for granted: {join(words)}." if words else text


def _warn_once(source: Source, state_dict: StateDict, model: Sequential) -> None:
    # Content in memory has no path. Its metadata and self-test identify it.
    content = state_dict.metadata["fastrnn"], state_dict["golden.output"].tobytes()
    identity = hash(content) if source.path is None else os.path.realpath(source.path)
    if identity not in _warned:
        _warned.add(identity)
        text = what_is_open(model.taken_for_granted, "example.output" in state_dict)
        warnings.warn(f"{source.where}: {text} `fastrnn verify` compares.", stacklevel=3)
