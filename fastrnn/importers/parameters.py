"""The tensors of one module out of a state dict, and the sizes that they tell."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fastrnn.arrays import Array
from fastrnn.checks import check_array, check_text
from fastrnn.errors import WeightError, literal, message, printable, quote
from fastrnn.importers.parametrizations import fold
from fastrnn.spec import GATES, RecurrentSpec

_RECURRENT_KEY = re.compile(
    r"(?P<name>weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(_l(?P<layer>\d{1,6})(?P<reverse>_reverse)?)?"
)


# ---------------------------------------------------------------- from a state dict


def is_recurrent_key(key: str) -> bool:
    """Whether the last part of a key is one of torch's names for a recurrent tensor."""
    return _RECURRENT_KEY.fullmatch(key.rpartition(".")[2]) is not None


def recurrent_prefixes(state_dict: Iterable[str]) -> list[str]:
    """The paths of the recurrent modules in a state dict, in its order."""
    return list(dict.fromkeys(k.rpartition(".")[0] for k in state_dict if is_recurrent_key(k)))


def recurrent_kind(weight_hh: Array, weight_hr: Array | None = None) -> str | None:
    """RNN, GRU or LSTM, as the shapes tell: rows over columns is the number of gates."""
    rows, columns = weight_hh.shape
    if 0 in weight_hh.shape:
        return None
    if weight_hr is not None:
        return "LSTM"
    for kind, gates in GATES.items():
        if rows == gates * columns:
            return kind
    return None


def take_prefix(where: str, state_dict: object, prefix: object) -> dict[str, Any]:
    """The entries under a module's path, without the path; at least one, or a WeightError.

    Parameters that training left in parts are whole (`fold`); one that could not be read or made whole is
    a WeightError that names it.
    """
    if not isinstance(state_dict, Mapping):
        got = type(state_dict).__name__
        hint = "fastrnn.load_state_dict(path) reads one from a file."
        raise TypeError(message(where, "state_dict to be a mapping of names to arrays", got, hint))
    for key in (key for key in state_dict if not isinstance(key, str)):
        check_text(where, "every key of state_dict", key)
    path = f"{check_text(where, 'prefix', prefix).removesuffix('.')}." if prefix else ""
    # A part may lie beside the module: fastai's raw weight is beside "module".
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
            hint = f"The modules here are {quote(found[:20])}{' ...' if len(found) > 20 else ''}."
        raise WeightError(message(where, f"keys that begin with {quote([path])}", "none", hint))
    return tensors


def _weights(where: str, name: str, value: Any) -> Array:
    """An array of weights; or raise, where it is one of whole numbers as quantised weights are."""
    array = check_array(where, printable(name), value)
    if array.dtype.kind in "iub" and array.itemsize < 4:
        hint = "Quantised weights are a number only with their scale: multiply it in first."
        raise WeightError(message(where, f"{printable(name)} to be floats", f"{array.dtype}", hint))
    return array


def unread_error(where: str, name: str, why: str) -> WeightError:
    """The error of a tensor that is in a file and was not read."""
    text = f"{where}: {printable(name)} is in the file, and was not read: {printable(why)}"
    return WeightError(text if text.endswith(".") else f"{text}.")


def read_recurrent(
    where: str, kind: str, state_dict: Mapping[str, Any], prefix: str, nonlinearity: str = "tanh"
) -> tuple[RecurrentSpec, dict[str, Array]]:
    """Read the shape of a recurrent module off its tensors, and check every one.

    Returns the RecurrentSpec and the tensors by torch's names, those of a cell
    (``weight_ih``) renamed as a layer's (``weight_ih_l0``).
    """
    entries = take_prefix(where, state_dict, prefix)
    if "weight_ih" in entries or "weight_hh" in entries:
        entries = {
            f"{key}_l0" if _RECURRENT_KEY.fullmatch(key) else key: value for key, value in entries.items()
        }
    tensors = {
        key: _weights(where, key, value) for key, value in entries.items() if _RECURRENT_KEY.fullmatch(key)
    }
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
        hint = ""
        others = [found for found in recurrent_prefixes(state_dict) if found != prefix.removesuffix(".")]
        if not prefix and others:
            hint = f"Recurrent modules here: {quote(others)}; name one with prefix={literal(others[0])}."
        wanted = f"the tensors of {spec.describe()}"
        raise WeightError(message(where, wanted, "; ".join(problems), hint))
    return spec, {key: tensors[key] for key in shapes}


def _spec_of(
    where: str,
    kind: str,
    tensors: Mapping[str, Array],
    prefix: str,
    nonlinearity: str,
    state_dict: Mapping[str, Any],
) -> RecurrentSpec:
    """What the first layer's shapes and the set of keys say."""
    weight_ih = tensors.get("weight_ih_l0")
    weight_hh = tensors.get("weight_hh_l0")
    weight_hr = tensors.get("weight_hr_l0")
    if weight_ih is None or weight_hh is None:
        missing = quote(k for k in ("weight_ih_l0", "weight_hh_l0") if k not in tensors)
        others = [found for found in recurrent_prefixes(state_dict) if found != prefix.removesuffix(".")]
        hint = f"Recurrent modules here: {quote(others)}; name one with prefix=." if others else ""
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
        if (match := _RECURRENT_KEY.fullmatch(key)) and match["layer"] is not None
    ]
    return RecurrentSpec(
        kind=kind,
        input_size=weight_ih.shape[1],
        hidden_size=weight_hh.shape[1] if weight_hr is None else weight_hr.shape[1],
        # A key of a layer far up is a surplus key, not a hundred million missing ones.
        num_layers=1 + max(layer for layer in layers if layer < len(tensors)),
        bidirectional="weight_ih_l0_reverse" in tensors,
        proj_size=0 if weight_hr is None else weight_hr.shape[0],
        bias="bias_ih_l0" in tensors or "bias_hh_l0" in tensors,
        nonlinearity=nonlinearity,
    )


def read_parameters(
    where: str,
    state_dict: Mapping[str, Any],
    prefix: str,
    dimensions: Mapping[str, int],
    optional: Collection[str] = (),
) -> dict[str, Array]:
    """Read the tensors of a module that is not recurrent.

    `dimensions` maps each name to its number of axes; the first is required, and all that
    are not `optional`. Surplus keys, missing ones and wrong numbers of axes are a WeightError.
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
