"""Parameters that a state dict holds in parts, made into the weights that torch's ``eval()`` module uses.

Some training methods keep a parameter in parts: a norm and a direction, a weight and a mask, or a raw weight
beside the copy that dropout was applied to. `fold` finds the parts by torch's names for them and replaces
them by the weight. If the parts do not determine the weight, the form is refused by name. Nothing is ever
guessed.

Sources: torch/nn/utils/{weight_norm,spectral_norm,prune,parametrize,parametrizations}.py
(https://github.com/pytorch/pytorch); weight drop: Merity et al., Regularizing and optimizing LSTM language
models, 2017 (https://arxiv.org/abs/1708.02182), in the forms of AWD-LSTM, torchnlp and fastai.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import check_array
from fastrnn.errors import WeightError, printable

# Patterns are compiled by `re` when they are first used: one takes 0.1 ms, and most models match none.
PARAMETER = r"(?:weight|bias|(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l[0-9]{1,6}(?:_reverse)?)?)"
# Forms may be nested: pruning the weight_v of weight norm leaves weight_v_orig and weight_v_mask.
_OLD = rf"(?s)(?P<path>(?:.*\.)?)(?P<name>{PARAMETER}(?:_(?:g|v|orig))*)_(?P<part>g|v|u|orig|mask|raw)"
_NEW = r"(?s)(?P<path>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)"
# Every name that matches _OLD has one of the endings; every name that matches _NEW contains the mark.
_ENDINGS = ("_g", "_v", "_u", "_orig", "_mask", "_raw")
_MARK = "parametrizations."
_RECURRENT = r"(?:weight|bias)_(?:ih|hh|hr).*"
# What to do if the parts do not determine the weight.
_REMEDY = (
    "In the program that made it, call torch.nn.utils.parametrize.remove_parametrizations(module, {name!r}) "
    "(older functions: torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove), then "
    "save its state_dict"
)

Parts: TypeAlias = dict[str, str]  # of one parameter: "g", "original0" or the like -> the key


class Folded(NamedTuple):
    """A state dict whose parameters are whole.

    Attributes
    ----------
    tensors : dict of str to array
        A folded parameter is at the position of its first part.
    forms : dict of str to str
        The name of each folded parameter, and the form that it had.
    refused : dict of str to str
        The name of each parameter that could not be folded, with the reason and what to do. Its parts are
        among the tensors, unchanged.
    """

    tensors: dict[str, Any]
    forms: dict[str, str]
    refused: dict[str, str]


def is_parameter(name: str) -> bool:
    """Whether the last part of a name is the name of a parameter of fastrnn's layers."""
    return re.fullmatch(PARAMETER, name.rpartition(".")[2]) is not None


def fold(where: str, state_dict: Mapping[str, Any], path: str = "") -> Folded:
    """Make the parameters of a state dict whole.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    state_dict : mapping of str to array-like
    path : str
        What the names of these parameters begin with; "" for all.
    """
    tensors: dict[str, Any] = dict(state_dict)
    forms: dict[str, str] = {}
    refused: dict[str, str] = {}
    while True:
        by_target = {
            target: parts for target, parts in _find_parts(tensors, path).items() if target not in refused
        }
        # Inner parameters first: what they make may be a part of another.
        inner = {t: p for t, p in by_target.items() if not any(key in by_target for key in p.values())}
        made: dict[str, Array] = {}
        spent: dict[str, str] = {}
        for target, parts in inner.items():
            form = _form_of(target, parts)
            if form is None:
                continue
            try:
                made[target] = _whole(where, tensors, target, parts, form)
            except WeightError as error:
                refused[target] = _refusal(target, form, str(error))
                continue
            base = _base_of(target)
            forms[base] = f"{forms[base]}, {form.name}" if base in forms else form.name
            spent |= dict.fromkeys(parts.values(), target)
        if not made:
            break
        tensors = _replaced(tensors, made, spent)
    return Folded(tensors, {name: form for name, form in forms.items() if name in tensors}, refused)


def _whole(where: str, tensors: Mapping[str, Any], target: str, parts: Parts, form: "_Form") -> Array:
    """Return the weight that parts make. Raise WeightError if they do not determine it."""
    if form.compute is None:
        raise WeightError(form.why)
    if target in tensors and form.name != "weight drop":
        # Only a raw weight may be beside another one: the copy that dropout was applied to.
        raise WeightError(f"its parts are beside a whole {target.rpartition('.')[2]}")
    arrays = {part: check_array(where, printable(key), tensors[key]) for part, key in parts.items()}
    if any(array.size == 0 for array in arrays.values()):
        raise WeightError("a part without numbers")
    return form.compute(arrays)


def _replaced(
    tensors: Mapping[str, Any], made: Mapping[str, Any], spent: Mapping[str, str]
) -> dict[str, Any]:
    """Return the tensors with each parameter that was made at the position of its first part."""
    result: dict[str, Any] = {}
    for key, value in tensors.items():
        target = spent.get(key, key)
        if target in made:
            result.setdefault(target, made[target])
        else:
            result[key] = value
    return result


def _base_of(target: str) -> str:
    """Return the parameter that a part belongs to: "rnn.weight_hh_l0" for "rnn.weight_hh_l0_v"."""
    while (match := re.fullmatch(_OLD, target)) is not None:
        target = match["path"] + match["name"]
    return target


def _refusal(target: str, form: "_Form", why: str) -> str:
    remedy = _REMEDY.format(name=printable(target.rpartition(".")[2]))
    return f"{form.name} ({printable(why)}). {remedy}"


def _find_parts(keys: Iterable[str], path: str) -> dict[str, Parts]:
    """Return the parts of each parameter under a path that is held in parts, by the parameter's name."""
    every = list(keys)
    keys = [key for key in every if key.endswith(_ENDINGS) or _MARK in key]
    found: dict[str, Parts] = {}
    modules: set[str] | None = None
    for key in keys:
        match = re.fullmatch(_NEW, key) or re.fullmatch(_OLD, key)
        if match is None:
            continue
        module, name, part = match["path"], match["name"], match["part"]
        if part == "raw":
            modules = {other.rpartition(".")[0] for other in every} if modules is None else modules
            if f"{module}module" in modules:
                module = f"{module}module."  # fastai keeps the raw weight beside the module, not in it
        if (module + name).startswith(path):
            found.setdefault(module + name, {})[part] = key
    return found


# ---------------------------------------------------------------- the forms


class _Form(NamedTuple):
    """A form of parameter: its name, and what makes the weight from the parts, or why nothing can."""

    name: str
    compute: Callable[[dict[str, Array]], Array] | None = None
    why: str = ""


def _form_of(target: str, parts: Parts) -> _Form | None:
    """Return the form that has these parts; None if they only look like parts."""
    names = frozenset(parts)
    if names in _FORMS:
        return _FORMS[names]
    if any(name.startswith("original") for name in names):
        return _parametrized(names)
    if "orig" in names:
        why = "weight_orig without the weight_mask of pruning or the weight_u and weight_v of spectral norm"
        return _Form("a weight in an unknown form", why=why)
    is_recurrent = re.fullmatch(_RECURRENT, target.rpartition(".")[2]) is not None
    if names & {"g", "raw"} or (is_recurrent and "v" in names):
        why = f"it has only {' and '.join(sorted(names))}"
        return _Form("weight drop" if "raw" in names else "weight norm", why=why)
    return None


def _parametrized(names: frozenset[str]) -> _Form:
    """Return the form of a torch.nn.utils.parametrize parameter that cannot be folded."""
    if any(name.endswith(".base") for name in names):
        why = "no file says which map it uses: matrix_exp, cayley or householder"
        return _Form("an orthogonal parametrization", why=why)
    why = "no file says what torch.nn.utils.parametrize was given"
    return _Form("a parametrization", why=why)


def _weight_norm(g: Array, v: Array) -> Array:
    """Return g v / |v|, with a norm for each index of one axis, or one norm for all."""
    is_one = g.size == 1 and g.ndim in (0, v.ndim)
    axes = [axis for axis, n in enumerate(g.shape) if n > 1]
    if not is_one and (g.ndim != v.ndim or len(axes) != 1 or g.shape[axes[0]] != v.shape[axes[0]]):
        raise WeightError(f"a norm of shape {g.shape} for a weight of shape {v.shape}")
    others = tuple(axis for axis in range(v.ndim) if axis not in axes)
    direction = v.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # a v of zeros gives NaN, as in torch
        norm = np.sqrt((direction**2).sum(axis=others, keepdims=True))
        return np.asarray(direction * (g / norm), v.dtype)


def _spectral_norm(weight: Array, u: Array, v: Array) -> Array:
    """Return W / sigma, where sigma = u^T W v, with one axis of W as rows and all others as columns."""
    fits = [axis for axis, n in enumerate(weight.shape) if u.shape == (n,) and v.shape == (weight.size // n,)]
    if not fits:
        raise WeightError(f"vectors of shape {u.shape} and {v.shape} for a weight of shape {weight.shape}")
    u, v = u.astype(np.float64), v.astype(np.float64)
    products = [np.moveaxis(weight, axis, 0).reshape(u.size, v.size).astype(np.float64) @ v for axis in fits]
    sigmas = [float(u @ product) for product in products]
    sigma = sigmas[_axis_of(u, products, sigmas)] if len(fits) > 1 else sigmas[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weight / sigma, weight.dtype)


def _axis_of(u: Array, products: list[Array], sigmas: list[float]) -> int:
    """Return which of several fitting axes the norm was taken over.

    No file says it. But for that axis u is W v / |W v|, up to the last training step.
    """
    if np.allclose(sigmas, sigmas[0], rtol=1e-7, atol=0):
        return 0
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = [float(np.linalg.norm(u - product / np.linalg.norm(product))) for product in products]
    best = int(np.argmin(errors))
    others = [error for index, error in enumerate(errors) if index != best]
    if not errors[best] < 0.5 * min(others):
        raise WeightError("no file says its dim, and more than one fits")
    return best


def _masked(weight: Array, mask: Array) -> Array:
    if mask.shape != weight.shape:
        raise WeightError(f"a mask of shape {mask.shape} for a weight of shape {weight.shape}")
    return np.asarray(weight * mask, weight.dtype)


_FORMS: dict[frozenset[str], _Form] = {
    frozenset(("g", "v")): _Form("weight norm", lambda p: _weight_norm(p["g"], p["v"])),
    frozenset(("original0", "original1")): _Form(
        "weight norm", lambda p: _weight_norm(p["original0"], p["original1"])
    ),
    frozenset(("orig", "u", "v")): _Form(
        "spectral norm", lambda p: _spectral_norm(p["orig"], p["u"], p["v"])
    ),
    frozenset(("original", "0._u", "0._v")): _Form(
        "spectral norm", lambda p: _spectral_norm(p["original"], p["0._u"], p["0._v"])
    ),
    frozenset(("orig", "u")): _Form("spectral norm", why="its weight_v is missing, as before torch 1.1"),
    frozenset(("orig", "mask")): _Form("pruning", lambda p: _masked(p["orig"], p["mask"])),
    frozenset(("raw",)): _Form("weight drop", lambda p: p["raw"]),
}
