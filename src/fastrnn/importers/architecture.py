"""From a bare state dict to layers, where its keys and shapes leave no doubt.

A state dict holds names and shapes: no order of layers, no activation, no layout. One recurrent
module alone, or an Embedding before it and a Linear behind it, is plain all the same. For
anything else `read_architecture` says what it found and shows the Sequential to write.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from fastrnn.errors import Array, WeightError, message, quote
from fastrnn.importers.checkpoint import StateDict
from fastrnn.spec import GATES, LayerSpec, is_recurrent_key, recurrent_kind

MAX_LINES = 40
Tensors: TypeAlias = Mapping[str, Array]


def read_architecture(
    where: str, state_dict: StateDict, batch_first: bool = False, nonlinearity: str | None = None
) -> list[LayerSpec]:
    """Return the LayerSpecs of a state dict that is plain, or raise WeightError.

    Parameters
    ----------
    where : str
        The file's name, for messages.
    state_dict : StateDict
    batch_first : bool
        The layout of the recurrent layer.
    nonlinearity : {"tanh", "relu"}, optional
        That of an RNN, which no state dict tells.
    """
    modules = _modules(state_dict)
    recurrent = [path for path, tensors in modules.items() if _is_recurrent(tensors)]
    doubt: str | None = None
    chain: list[str] = []
    if len(recurrent) != 1:
        doubt = f"{len(recurrent)} recurrent modules" if recurrent else "no recurrent module"
    else:
        chain, doubt = _chain(modules, recurrent[0])
    if nonlinearity is not None and len(recurrent) == 1 and _kind(modules[recurrent[0]]) != "RNN":
        raise ValueError(message(where, "an RNN beside nonlinearity", f"{_kind(modules[recurrent[0]])}"))
    if doubt is None and _kind(modules[recurrent[0]]) == "RNN" and nonlinearity is None:
        doubt = 'an RNN, of which no file says whether it is "tanh" or "relu" (nonlinearity=)'
    if doubt is not None:
        raise WeightError(message(where, "a plain architecture", doubt, suggestion(state_dict)))
    specs = []
    for path in chain:
        options: dict[str, Any] = {}
        if path == recurrent[0]:
            options["batch_first"] = batch_first
            if nonlinearity is not None:
                options["nonlinearity"] = nonlinearity
        kind = cast("str", _layer_kind(path, modules[path]))
        specs.append(LayerSpec(kind, options, modules[path]))
    return specs


def suggestion(state_dict: StateDict) -> str:
    """The text of a Sequential for a state dict: every module found, in the file's order."""
    modules = _modules(state_dict)
    key = f", key={json.dumps(state_dict.key)}" if state_dict.key else ""
    lines = []
    for path, tensors in list(modules.items())[: MAX_LINES + 1]:
        kind = _layer_kind(path, tensors)
        if kind is None:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in list(tensors.items())[:6])
            lines.append(f"    # {path or '(top)'}: {shapes}")
        else:
            option = ', nonlinearity="tanh"),  # or "relu"' if kind == "RNN" else "),"
            lines.append(f'    fastrnn.{kind}.from_state_dict(sd, "{path}"{option}')
    return "\n".join(
        [
            "Write the model out, in the order of its forward method:",
            "fastrnn.Sequential(",
            *lines[:MAX_LINES],
            *(["    # ..."] if len(lines) > MAX_LINES else []),
            ")",
            f"with sd = fastrnn.load_state_dict(path{key}); activations, fastrnn.Last() and batch_first=True "
            "where they belong, which no file tells.",
        ]
    )


def _modules(state_dict: Tensors) -> dict[str, dict[str, Array]]:
    """The tensors of each module: paths to names to arrays."""
    modules: dict[str, dict[str, Array]] = {}
    for key, array in state_dict.items():
        path, _, name = key.rpartition(".")
        modules.setdefault(path, {})[name] = array
    return modules


def _is_recurrent(tensors: Tensors) -> bool:
    return any(is_recurrent_key(name) for name in tensors)


def _kind(tensors: Tensors) -> str | None:
    """RNN, GRU or LSTM; None where the shapes fit none of them."""
    weight_ih = tensors.get("weight_ih_l0", tensors.get("weight_ih"))
    weight_hh = tensors.get("weight_hh_l0", tensors.get("weight_hh"))
    if weight_ih is None or weight_hh is None or not weight_ih.ndim == weight_hh.ndim == 2:
        return None
    return recurrent_kind(weight_hh, tensors.get("weight_hr_l0"))


def _sizes(tensors: Tensors) -> tuple[int, int]:
    """The features that a recurrent module of a known kind takes and gives."""
    weight_ih = tensors["weight_ih_l0" if "weight_ih_l0" in tensors else "weight_ih"]
    weight_hh = tensors["weight_hh_l0" if "weight_hh_l0" in tensors else "weight_hh"]
    directions = 2 if "weight_ih_l0_reverse" in tensors else 1
    return weight_ih.shape[1], directions * weight_hh.shape[1]


def _layer_kind(path: str, tensors: Tensors) -> str | None:
    """The layer that a module's tensors make, as well as its name and shapes tell; or None."""
    if _is_recurrent(tensors):
        return _kind(tensors)
    weight = tensors.get("weight")
    if weight is None or not set(tensors) <= {"weight", "bias"}:
        return None
    if weight.ndim == 1 and "bias" in tensors:
        return "LayerNorm"
    if weight.ndim != 2:
        return None
    return "Embedding" if "bias" not in tensors and "emb" in path.lower() else "Linear"


def _chain(modules: Mapping[str, Tensors], recurrent: str) -> tuple[list[str], str | None]:
    """The paths of Embedding, recurrent module and Linear in order, and None; or none and why not."""
    tensors = modules[recurrent]
    if _kind(tensors) not in GATES:
        return [], f'weights of no known cell under "{recurrent}"'
    given, taken = _sizes(tensors)
    before, behind = [], []
    for path, others in modules.items():
        if path == recurrent:
            continue
        kind = _layer_kind(path, others)
        weight: Any = others.get("weight")  # a matrix, where the kind is one of these two
        if kind == "Embedding" and weight.shape[1] == given:
            before.append(path)
        elif kind == "Linear" and weight.shape[1] == taken and weight.shape[0] != given:
            behind.append(path)
        elif kind == "Linear" and weight.shape[1] == taken:
            return [], f'"{path}", which fits before "{recurrent}" and behind it'
        else:
            return [], f'"{path}" beside the recurrent module "{recurrent}"'
    for found in (before, behind):
        if len(found) > 1:
            return [], f"the modules {quote(found)}, in an order that no file tells"
    return [*before, recurrent, *behind], None
