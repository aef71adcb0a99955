"""Weights that a state dict holds in another form, folded into those that torch's ``eval()`` module uses.

Training leaves a parameter in parts: a norm and a direction, a weight and a mask, a raw copy beside one that
a dropout thinned out. `fold` finds those parts by torch's names for them and puts the weight in their place.
A form that no file tells enough of is refused by its name.

Sources: torch/nn/utils/{weight_norm,spectral_norm,prune,parametrize,parametrizations}.py
(https://github.com/pytorch/pytorch); weight drop: Merity et al., Regularizing and optimizing LSTM language
models, 2017 (https://arxiv.org/abs/1708.02182), as AWD-LSTM, torchnlp and fastai keep it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrnn.errors import Array, WeightError, check_array, printable

PARAMETER = r"(?:weight|bias|(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l\d{1,6}(?:_reverse)?)?)"
_OLD = re.compile(rf"(?P<path>(?:.*\.)?)(?P<name>{PARAMETER})_(?P<part>g|v|u|orig|mask|raw)", re.DOTALL)
_NEW = re.compile(r"(?P<path>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)", re.DOTALL)
# What to do where no file tells enough.
_REMEDY = (
    "In the program that made it: torch.nn.utils.parametrize.remove_parametrizations(module, {name!r}) (of "
    "the old kind: torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove), then save its "
    "state_dict"
)

Parts: TypeAlias = dict[str, str]  # of a parameter: "g", "original0" or the like, to the key


@dataclass(frozen=True)
class Folded:
    """A state dict whose parameters are whole.

    Attributes
    ----------
    tensors : dict
        Names to arrays; a folded one stands where its first part stood.
    forms : dict of str to str
        The name of each that was folded, and of which form it was.
    refused : dict of str to str
        The name of each that could not be, and why and what to do; its parts are among the tensors as they
        were.
    """

    tensors: dict[str, Any]
    forms: dict[str, str]
    refused: dict[str, str]


def fold(where: str, state_dict: Mapping[str, Any], path: str = "") -> Folded:
    """Fold the parameters under a path (``""``: all) of a state dict.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    state_dict : mapping of str to array-like
    path : str
        What the names of the parameters begin with.
    """
    by_target = {
        target: parts for target, parts in _find_parts(state_dict).items() if target.startswith(path)
    }
    if not by_target:
        return Folded(dict(state_dict), {}, {})
    forms: dict[str, str] = {}
    refused: dict[str, str] = {}
    made: dict[str, NDArray[Any]] = {}
    spent: dict[str, str] = {}
    for target, parts in by_target.items():
        form = _form_of(parts)
        if form is None:
            continue
        if form.compute is None:
            refused[target] = _refusal(target, form, form.why)
            continue
        arrays = {part: check_array(where, key, state_dict[key]) for part, key in parts.items()}
        try:
            made[target] = form.compute(arrays)
        except WeightError as error:
            refused[target] = _refusal(target, form, str(error))
            continue
        if form.name != "weight drop" and target in state_dict:
            # A raw weight stands beside the copy that a dropout made; nothing else stands beside another.
            refused[target] = _refusal(target, form, f"its parts stand beside a {target.rpartition('.')[2]}")
            del made[target]
            continue
        forms[target] = form.name
        spent |= dict.fromkeys(parts.values(), target)
    tensors: dict[str, Any] = {}
    for key, value in state_dict.items():
        target = spent.get(key, key)
        if target in made:
            tensors.setdefault(target, made[target])
        else:
            tensors[key] = value
    return Folded(tensors, forms, refused)


def _refusal(target: str, form: "_Form", why: str) -> str:
    remedy = _REMEDY.format(name=printable(target.rpartition(".")[2]))
    return f"{form.name} ({printable(why)}). {remedy}"


def _find_parts(keys: Iterable[str]) -> dict[str, Parts]:
    """The parts of each parameter that is held in parts, by its name."""
    keys = list(keys)
    found: dict[str, Parts] = {}
    modules = {key.rpartition(".")[0] for key in keys}
    for key in keys:
        match = _NEW.fullmatch(key) or _OLD.fullmatch(key)
        if match is None:
            continue
        path, name, part = match["path"], match["name"], match["part"]
        if part == "raw" and f"{path}module" in modules:
            path = f"{path}module."  # fastai's: the raw weight beside the module, not in it
        found.setdefault(path + name, {})[part] = key
    return found


# ---------------------------------------------------------------- the forms


@dataclass(frozen=True)
class _Form:
    """How a parameter is held: its name, and what makes the weight of the parts, or why nothing does."""

    name: str
    compute: Callable[[dict[str, Array]], Array] | None = None
    why: str = ""


def _form_of(parts: Parts) -> _Form | None:
    """The form that parts of these names make; None where they are no form but names of their own."""
    names = frozenset(parts)
    if names in _FORMS:
        return _FORMS[names]
    if any(name.startswith("original") for name in names):
        return _parametrized(names)
    if "orig" in names:
        why = "weight_orig without the weight_mask of pruning or the weight_u and weight_v of spectral norm"
        return _Form("a weight in an unknown form", why=why)
    if names & {"g", "raw"}:
        why = f"it has only {' and '.join(sorted(names))}"
        return _Form("weight norm" if "g" in names else "weight drop", why=why)
    return None


def _parametrized(names: frozenset[str]) -> _Form:
    """The forms of torch.nn.utils.parametrize that cannot be folded."""
    if any(name.endswith(".base") for name in names):
        why = "no file tells its map (matrix_exp, cayley or householder)"
        return _Form("an orthogonal parametrization", why=why)
    why = "no file tells what torch.nn.utils.parametrize was given"
    return _Form("a parametrization", why=why)


def _weight_norm(g: Array, v: Array) -> Array:
    """w = g v / |v|, a norm for each index of one axis, or one for all."""
    is_one = g.size == 1 and g.ndim in (0, v.ndim)
    axes = [axis for axis, n in enumerate(g.shape) if n > 1]
    if not is_one and (g.ndim != v.ndim or len(axes) != 1 or g.shape[axes[0]] != v.shape[axes[0]]):
        raise WeightError(f"a norm of shape {g.shape} for a weight of shape {v.shape}")
    others = tuple(axis for axis in range(v.ndim) if axis not in axes)
    direction = v.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # of zeros, it is NaN in torch too
        norm = np.sqrt((direction**2).sum(axis=others, keepdims=True))
        return np.asarray(direction * (g / norm), v.dtype)


def _spectral_norm(weight: Array, u: Array, v: Array) -> Array:
    """w / sigma, where sigma = u^T W v with W's first axis kept and the others as one."""
    rows = [axis for axis, n in enumerate(weight.shape) if u.shape == (n,) and v.shape == (weight.size // n,)]
    if not rows or (len(rows) > 1 and weight.ndim > 2):
        raise WeightError(f"vectors of shape {u.shape} and {v.shape} for a weight of shape {weight.shape}")
    matrix = np.moveaxis(weight, rows[0], 0).reshape(u.size, v.size).astype(np.float64)
    sigma = u.astype(np.float64) @ matrix @ v.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weight / sigma, weight.dtype)


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
