"""The tensors of one module from a state dict, checked, and the sizes that their shapes give.

The state dict may be a StateDict or any mapping that a user passes. Which layers a whole state dict makes is
decided in `architecture`.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import check_array, check_text
from fastrnn.errors import WeightError, literal, message, printable, quote, quote_first
from fastrnn.importers.parametrizations import fold
from fastrnn.narrow import NarrowWeight
from fastrnn.spec import GATES, RecurrentSpec

# The names of a learned initial state, in the order of the state.
INITIAL = {"RNN": ("h_0",), "GRU": ("h_0",), "LSTM": ("h_0", "c_0")}

# ---------------------------------------------------------------- keys and shapes


def _match_recurrent(name: str) -> re.Match[str] | None:
    """Match one of torch's names for a recurrent tensor."""
    return re.fullmatch(
        r"(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(_l(?P<layer>[0-9]{1,6})(_reverse)?)?", name
    )


def is_recurrent_key(key: str) -> bool:
    """Whether the last part of a key is one of torch's names for a recurrent tensor."""
    return _match_recurrent(key.rpartition(".")[2]) is not None


def recurrent_prefixes(state_dict: Iterable[str]) -> list[str]:
    """Return the paths of the recurrent modules in a state dict, in its order."""
    return list(dict.fromkeys(k.rpartition(".")[0] for k in state_dict if is_recurrent_key(k)))


def recurrent_kind(weight_hh: Array, weight_hr: Array | None = None) -> str | None:
    """Return "RNN", "GRU" or "LSTM", given that rows divided by columns is the number of gates; else None."""
    rows, columns = weight_hh.shape
    if 0 in weight_hh.shape:
        return None
    if weight_hr is not None:
        return "LSTM"
    for kind, gates in GATES.items():
        if rows == gates * columns:
            return kind
    return None


# ---------------------------------------------------------------- the tensors of a module


def take_prefix(where: str, state_dict: object, prefix: object) -> dict[str, Any]:
    """Return the entries under a module's path, without the path.

    Parameters that training kept in parts become whole (`fold`).

    Raises
    ------
    TypeError
        `state_dict` is no mapping with str keys, or `prefix` no str.
    WeightError
        There are no such entries, or one of them could not be read or made whole.
    """
    if not isinstance(state_dict, Mapping):
        got = type(state_dict).__name__
        hint = "fastrnn.load_state_dict(path) reads one from a file."
        raise TypeError(message(where, "state_dict to be a mapping of names to arrays", got, hint))
    for key in (key for key in state_dict if not isinstance(key, str)):
        check_text(where, "every key of state_dict", key)
    path = f"{check_text(where, 'prefix', prefix).removesuffix('.')}." if prefix else ""
    # A part may lie beside the module: fastai keeps the raw weight beside "module".
    scope = path.removesuffix("module.")
    folded = fold(where, {key: state_dict[key] for key in state_dict if key.startswith(scope)}, path)
    for name, why in {**getattr(state_dict, "unread", {}), **folded.refused}.items():
        if name.startswith(path):
            raise unread_error(where, name, why)
    tensors = {key[len(path) :]: value for key, value in folded.tensors.items() if key.startswith(path)}
    if not tensors:
        hint = ""
        found = sorted({key.rpartition(".")[0] for key in state_dict})
        if found:
            hint = f"The modules here are {quote_first(found, 20)}."
        raise WeightError(message(where, f"keys that begin with {quote([path])}", "none", hint))
    return tensors


def _weights(where: str, name: str, value: Any) -> Any:  # Array or NarrowWeight, which have the same shapes
    """Return an array of weights, or narrow ones, which have two axes or more.

    Raises
    ------
    WeightError
        They look like quantised weights without a scale.
    """
    if isinstance(value, NarrowWeight) and value.ndim > 1:
        return value
    array = check_array(where, printable(name), value)
    if array.dtype.kind in "iub" and array.itemsize < 4:
        hint = "Quantised weights mean nothing without their scale. Multiply by it first."
        raise WeightError(message(where, f"{printable(name)} to be floats", f"{array.dtype}", hint))
    return array


def unread_error(where: str, name: str, why: str) -> WeightError:
    """Return the error for a tensor that is in a file but was not read."""
    text = f"{where}: {printable(name)} is in the file but was not read: {printable(why)}"
    return WeightError(text if text.endswith(".") else f"{text}.")


# ---------------------------------------------------------------- recurrent modules


def read_recurrent(
    where: str, kind: str, state_dict: Mapping[str, Any], prefix: str, nonlinearity: str = "tanh"
) -> tuple[RecurrentSpec, dict[str, Array]]:
    """Read the shape of a recurrent module from its tensors, and check each of them.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    kind : {"RNN", "GRU", "LSTM"}
    state_dict : mapping of str to array-like
    prefix : str
        The path of the module.
    nonlinearity : {"tanh", "relu"}

    Returns
    -------
    spec : RecurrentSpec
    tensors : dict of str to ndarray
        By torch's names. Those of a cell (``weight_ih``) are named as a layer's (``weight_ih_l0``). A learned
        initial state that lies beside them is "h_0", and "c_0" of an LSTM.

    Raises
    ------
    WeightError
        A tensor is missing, surplus or of the wrong shape, or the weights are those of another kind.
    """
    entries = take_prefix(where, state_dict, prefix)
    if "weight_ih" in entries or "weight_hh" in entries:
        entries = {f"{key}_l0" if _match_recurrent(key) else key: value for key, value in entries.items()}
    states = {name: entries.pop(name) for name in INITIAL[kind] if name in entries}
    tensors = {key: _weights(where, key, value) for key, value in entries.items() if _match_recurrent(key)}
    spec = _spec_of(where, kind, tensors, prefix, nonlinearity, state_dict)
    shapes = spec.tensor_shapes()
    problems = [f"{key} is missing" for key in shapes if key not in tensors]
    problems += [f"{printable(key)} is not one of its keys" for key in entries if key not in shapes]
    problems += [
        f"{key} has the shape {tensors[key].shape} in place of {shape}"
        for key, shape in shapes.items()
        if key in tensors and tensors[key].shape != shape
    ]
    if problems:
        others = _other_recurrent(state_dict, prefix)
        hint = "" if prefix or not others else _prefix_hint(others)
        wanted = f"the tensors of {spec.describe()}"
        raise WeightError(message(where, wanted, "; ".join(problems), hint))
    return spec, {key: tensors[key] for key in shapes} | read_initial(where, spec, states)


def read_initial(where: str, spec: RecurrentSpec, states: Mapping[str, Any]) -> dict[str, Array]:
    """Return a learned initial state: arrays (L*D, columns) by the names of ``INITIAL``, all or none.

    They may have an axis of one row, as parameters of modules often do.

    Raises
    ------
    WeightError
        An array is missing or has another shape.
    """
    if not states:
        return {}
    arrays = {}
    for name, shape in zip(INITIAL[spec.kind], spec.state_shapes(None).values(), strict=True):
        if name not in states:
            raise WeightError(message(where, " and ".join(INITIAL[spec.kind]), f"no {name}"))
        array = np.asarray(_weights(where, name, states[name]))
        if array.shape not in (shape, (shape[0], 1, shape[1])) and not (shape[0] == 1 == array.ndim):
            raise WeightError(message(where, f"{name} of shape {shape}", f"{array.shape}"))
        if array.shape[-1] != shape[1]:
            raise WeightError(message(where, f"{name} of shape {shape}", f"{array.shape}"))
        arrays[name] = array.reshape(shape)
    return arrays


def _other_recurrent(state_dict: Iterable[str], prefix: str) -> list[str]:
    """Return the paths of the recurrent modules other than the one at `prefix`."""
    return [path for path in recurrent_prefixes(state_dict) if path != prefix.removesuffix(".")]


def _prefix_hint(paths: list[str]) -> str:
    return f"Recurrent modules here: {quote(paths)}. Name one with prefix={literal(paths[0])}."


def _spec_of(
    where: str,
    kind: str,
    tensors: Mapping[str, Array],
    prefix: str,
    nonlinearity: str,
    state_dict: Mapping[str, Any],
) -> RecurrentSpec:
    """Return the spec that the shapes of the first layer and the set of keys give."""
    weight_ih = tensors.get("weight_ih_l0")
    weight_hh = tensors.get("weight_hh_l0")
    weight_hr = tensors.get("weight_hr_l0")
    if weight_ih is None or weight_hh is None:
        missing = quote(k for k in ("weight_ih_l0", "weight_hh_l0") if k not in tensors)
        others = _other_recurrent(state_dict, prefix)
        hint = _prefix_hint(others) if others else ""
        under = f' under "{prefix}"' if prefix else ""
        raise WeightError(message(where, f"weight_ih_l0 and weight_hh_l0{under}", f"no {missing}", hint))
    for name, array in (
        ("weight_ih_l0", weight_ih),
        ("weight_hh_l0", weight_hh),
        ("weight_hr_l0", weight_hr),
    ):
        if array is not None and (array.ndim != 2 or 0 in array.shape):
            raise WeightError(message(where, f"{name} to be a matrix", f"shape {array.shape}"))
    found = recurrent_kind(weight_hh, weight_hr)
    if found is None:
        got = f"weight_hh_l0 of shape {weight_hh.shape}"
        raise WeightError(message(where, "rows of weight_hh to be 1, 3 or 4 times its columns", got))
    if found != kind:
        sign = "has a weight_hr" if weight_hr is not None else f"has {GATES[found]} gates"
        hint = f"weight_hh_l0 of shape {weight_hh.shape} {sign}: use fastrnn.{found}."
        raise WeightError(message(where, f"the weights of {kind}", f"those of {found}", hint))
    layers = [
        int(match["layer"])
        for key in tensors
        if (match := _match_recurrent(key)) and match["layer"] is not None
    ]
    return RecurrentSpec(
        kind=kind,
        input_size=weight_ih.shape[1],
        hidden_size=weight_hh.shape[1] if weight_hr is None else weight_hr.shape[1],
        # One key of a very high layer is a surplus key, not a hundred million missing ones.
        num_layers=1 + max(layer for layer in layers if layer < len(tensors)),
        bidirectional="weight_ih_l0_reverse" in tensors,
        proj_size=0 if weight_hr is None else weight_hr.shape[0],
        bias="bias_ih_l0" in tensors or "bias_hh_l0" in tensors,
        nonlinearity=nonlinearity,
    )


# ---------------------------------------------------------------- other modules


def read_parameters(
    where: str,
    state_dict: Mapping[str, Any],
    prefix: str,
    dimensions: Mapping[str, int],
    optional: Collection[str] = (),
) -> dict[str, Array]:
    """Read the tensors of a module that is not recurrent.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    state_dict : mapping of str to array-like
    prefix : str
        The path of the module.
    dimensions : mapping of str to int
        The number of axes of each tensor.
    optional : collection of str
        The names that may be missing.

    Raises
    ------
    WeightError
        A tensor is missing, surplus, empty or has another number of axes.
    """
    entries = take_prefix(where, state_dict, prefix)
    problems = [f"{name} is missing" for name in dimensions if name not in entries and name not in optional]
    problems += [f"{printable(name)} is not one of its keys" for name in entries if name not in dimensions]
    tensors = {}
    if not problems:
        tensors = {name: _weights(where, name, entries[name]) for name in dimensions if name in entries}
        problems = [
            f"{name} has the shape {array.shape}"
            for name, array in tensors.items()
            if array.ndim != dimensions[name] or 0 in array.shape
        ]
    if problems:
        axes = [f"{name} of {n} ax{'i' if n == 1 else 'e'}s" for name, n in dimensions.items()]
        raise WeightError(message(where, ", ".join(axes), "; ".join(problems)))
    return tensors
