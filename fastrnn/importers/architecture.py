"""From a bare state dict to layers, if its keys and shapes leave no doubt.

A state dict holds names and shapes. It says nothing about the order of layers, activations or the layout. One
recurrent module alone, or with an Embedding before it and a Linear after it, is plain nevertheless. For
anything else `read_architecture` says what it found and shows the Sequential to write. It never guesses.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias, cast

from fastrnn.arrays import Array
from fastrnn.errors import WeightError, join, literal, message, printable, quote
from fastrnn.importers.parameters import is_recurrent_key, recurrent_kind, unread_error
from fastrnn.importers.source import Source
from fastrnn.importers.state_dict import StateDict
from fastrnn.spec import GATES, GRANTED, LayerSpec

MAX_LINES = 40  # of a suggested program
Tensors: TypeAlias = Mapping[str, Array]

# "emb", "embed" and the like, but not the "emb" of "ensemble".
_EMBEDDING = r"[Ee]mb(?![a-z])|[Ee]mbed|EMB"
# A module of an nn.Sequential, whose names are numbers.
_NUMBERED = r"(?s)(?:(?P<parent>.*)\.)?(?P<number>[0-9]{1,6})"


class _Modules(dict[str, dict[str, Array]]):
    """The tensors of each module by its path, with a cache for `_surroundings`."""

    surroundings: tuple[set[tuple[int, int]], bool] | None = None


# ---------------------------------------------------------------- the layers


def read_architecture(
    source: Source, state_dict: StateDict, batch_first: bool = False, nonlinearity: str | None = None
) -> list[LayerSpec]:
    """Return the layers of a state dict whose architecture is plain.

    Parameters
    ----------
    source : Source
        Where it was read from, for messages.
    state_dict : StateDict
    batch_first : bool
        The layout of the recurrent layer.
    nonlinearity : {"tanh", "relu"}, optional
        That of an RNN, which a state dict does not say.

    Returns
    -------
    list of LayerSpec

    Raises
    ------
    WeightError
        The architecture is not plain, or a tensor was not read.
    ValueError
        `nonlinearity` was given for a layer other than an RNN.
    """
    where = source.where
    if state_dict.unread:
        raise unread_error(where, *next(iter(state_dict.unread.items())))
    if state_dict.others:
        paths = (state_dict.key, *state_dict.others[:5])
        got = join(literal(path) if path else 'weights at the top ("")' for path in paths)
        here = f"key={literal(state_dict.key)} loads the first alone. Or write the whole model out:"
        hint = f"{here}\n{suggestion(source, state_dict)}"
        raise WeightError(message(where, "a file with one model", got, hint))
    modules = _modules(state_dict)
    recurrent = [path for path, tensors in modules.items() if _is_recurrent(tensors)]
    doubt: str | None = None
    chain: list[str] = []
    if len(recurrent) != 1:
        doubt = f"{len(recurrent)} recurrent modules" if recurrent else "no recurrent module"
    else:
        chain, doubt = _chain(modules, recurrent[0])
    if nonlinearity is not None and len(recurrent) == 1 and _kind(modules[recurrent[0]]) != "RNN":
        raise ValueError(message(where, "an RNN to go with nonlinearity", f"{_kind(modules[recurrent[0]])}"))
    if doubt is None and _kind(modules[recurrent[0]]) == "RNN" and nonlinearity is None:
        doubt = 'an RNN, and no file says whether it is "tanh" or "relu" (nonlinearity=)'
    if doubt is not None:
        hint = f"Write the model out, in the order of its forward method:\n{suggestion(source, state_dict)}"
        raise WeightError(message(where, "a plain architecture", doubt, hint))
    specs = []
    for path in chain:
        options: dict[str, Any] = {}
        if path == recurrent[0]:
            options["batch_first"] = batch_first
            if nonlinearity is not None:
                options["nonlinearity"] = nonlinearity
        kind = cast("str", _layer_kind(path, modules[path], modules))
        specs.append(LayerSpec(kind, options, modules[path]))
    return specs


def taken_for_granted(batch_first: bool | None) -> tuple[str, ...]:
    """Return what the state dict of a model does not say, as names in `spec.GRANTED`.

    `batch_first` is what the caller said of the layout, or None.
    """
    return tuple(name for name in GRANTED if name != "time_first" or batch_first is None)


# ---------------------------------------------------------------- the suggested program


class _Module(NamedTuple):
    """A module that is a layer of fastrnn, and its numbers of features. None stands for tokens."""

    path: str
    kind: str
    features_in: int | None
    features_out: int | None


def suggestion(source: Source, state_dict: StateDict) -> str:
    """Return a program that makes the model of a state dict.

    It runs as it is. Its comments ask for what no file says.
    """
    modules = _modules(state_dict)
    known = []
    others = []
    for path, tensors in modules.items():
        kind = _layer_kind(path, tensors, modules)
        if kind is None:
            shapes = ", ".join(
                f"{printable(name)} {array.shape}" for name, array in list(tensors.items())[:6]
            )
            others.append(f"    # {printable(path) or '(top)'}: {shapes}: not a layer of fastrnn")
        else:
            known.append(_Module(path, kind, *_features(kind, tensors)))
    chain = _ordered(known[:MAX_LINES])
    kept = set(chain)
    others = [f"    # {_line(module)}  # does not fit" for module in known if module not in kept] + others
    recurrent = [module for module in chain if module.kind in GATES]
    lines = []
    for module in chain:
        before = _without_weights(module.path, modules)
        lines += (
            [f"    # {printable(before)} has no weights: perhaps an activation"] if before is not None else []
        )
        lines.append(f"    {_line(module)}{_question(module)}")
        if module in recurrent[-1:]:
            lines.append("    # fastrnn.Last(),  # if forward() uses only the last step")
    if len(lines) + len(others) > MAX_LINES:
        others = [*others[: max(0, MAX_LINES - len(lines))], "    # ..."]
    key = f", key={literal(state_dict.key)}" if state_dict.key else ""
    path_text = "path" if source.path is None else literal(source.path)
    begin = ["import fastrnn", "", f"sd = fastrnn.load_state_dict({path_text}{key})"]
    begin += [
        f"# another model of this file: fastrnn.load_state_dict({path_text}, key={literal(other)})"
        for other in state_dict.others[:MAX_LINES]
    ]
    if not chain:
        return "\n".join([*begin, *(line.lstrip() for line in others)])
    return "\n".join(
        [
            *begin,
            "model = fastrnn.Sequential(",
            *lines,
            *others,
            "    # Add activations such as fastrnn.Sigmoid() where forward() has them.",
            ")",
        ]
    )


def _line(module: _Module) -> str:
    options = ', nonlinearity="tanh"' if module.kind == "RNN" else ""
    return f"fastrnn.{module.kind}.from_state_dict(sd, {literal(module.path)}{options}),"


def _question(module: _Module) -> str:
    """Return a comment with what no file says about a layer."""
    if module.kind in GATES:
        either = ' or nonlinearity="relu"' if module.kind == "RNN" else ""
        return f"  # batch_first=True{either}, if the module has it"
    if module.kind == "LayerNorm":
        return "  # if it is a LayerNorm; eps= if that is not 1e-5"
    return ""


def _ordered(modules: list[_Module]) -> list[_Module]:
    """Return as many modules as fit one after another: tokens first, else in the order of the file."""
    chain: list[_Module] = []
    rest = sorted(modules, key=lambda module: module.kind != "Embedding")
    while rest:
        features = next((m.features_out for m in reversed(chain) if m.features_out is not None), None)
        fitting = [
            module
            for module in rest
            if (module.kind != "Embedding" or not chain)
            and (features is None or module.features_in in (None, features))
        ]
        if not chain:
            fitting = _beginnings(fitting)
        if not fitting:
            break
        # If a Linear fits as well, the recurrent module goes first: a Linear usually follows it.
        best = min(fitting, key=lambda module: module.kind not in GATES)
        chain.append(best)
        rest.remove(best)
    return chain


def _beginnings(modules: list[_Module]) -> list[_Module]:
    """Return the modules that a model may begin with: those before a recurrent one, else recurrent ones."""
    recurrent = [module for module in modules if module.kind in GATES]
    first = [
        module
        for module in modules
        if module.kind != "LayerNorm"
        and module not in recurrent
        and any(module.features_out == r.features_in for r in recurrent)
        and not any(module.features_in == r.features_out for r in recurrent)
    ]
    return first or recurrent or modules


def _features(kind: str, tensors: Tensors) -> tuple[int | None, int | None]:
    """Return the features that a layer takes and gives; None for tokens."""
    if kind in GATES:
        return _sizes(tensors)
    weight = tensors["weight"]
    if kind == "LayerNorm":
        return weight.shape[0], weight.shape[0]
    return (None, weight.shape[1]) if kind == "Embedding" else (weight.shape[1], weight.shape[0])


# ---------------------------------------------------------------- what a module is


def module_paths(state_dict: Tensors) -> set[str]:
    """Return the paths of the modules of a state dict that themselves hold tensors."""
    return set(_modules(state_dict))


def kind_of_module(state_dict: Tensors, path: str) -> str | None:
    """Return the layer that the tensors of a module make; None if there is no such module or layer."""
    modules = _modules(state_dict)
    return _layer_kind(path, modules[path], modules) if path in modules else None


def _modules(state_dict: Tensors) -> _Modules:
    """Return the arrays of each module by name, by the path of the module."""
    modules = _Modules()
    for key, array in state_dict.items():
        path, _, name = key.rpartition(".")
        modules.setdefault(path, {})[name] = array
    return modules


def _is_recurrent(tensors: Tensors) -> bool:
    return any(is_recurrent_key(name) for name in tensors)


def _kind(tensors: Tensors) -> str | None:
    """Return "RNN", "GRU" or "LSTM"; None if the shapes fit none of them."""
    weight_ih, weight_hh = _first_weights(tensors)
    if weight_ih is None or weight_hh is None or not weight_ih.ndim == weight_hh.ndim == 2:
        return None
    return recurrent_kind(weight_hh, tensors.get("weight_hr_l0"))


def _first_weights(tensors: Tensors) -> tuple[Any, Any]:
    """Return weight_ih and weight_hh of the first layer, or of a cell; None for a missing one."""
    names = ("weight_ih", "weight_hh")
    weight_ih, weight_hh = (tensors.get(f"{name}_l0", tensors.get(name)) for name in names)
    return weight_ih, weight_hh


def _what_is_wrong(tensors: Tensors) -> str:
    """Say why the tensors of a recurrent module make none of the cells."""
    suffix = "" if any(name in tensors for name in ("weight_ih", "weight_hh")) else "_l0"
    missing = [name for name in (f"weight_ih{suffix}", f"weight_hh{suffix}") if name not in tensors]
    if missing:
        return f"no {quote(missing)}"
    shape = tensors[f"weight_hh{suffix}"].shape
    return f"weight_hh{suffix} of shape {shape}, whose rows are not 1, 3 or 4 times its columns"


def _sizes(tensors: Tensors) -> tuple[int, int]:
    """Return the features that a recurrent module of a known kind takes and gives."""
    weight_ih, weight_hh = _first_weights(tensors)
    directions = 2 if "weight_ih_l0_reverse" in tensors else 1
    return weight_ih.shape[1], directions * weight_hh.shape[1]


def _layer_kind(path: str, tensors: Tensors, modules: Mapping[str, Tensors]) -> str | None:
    """Return the layer that a module is by its names and shapes; None if it is none of fastrnn's."""
    if _is_recurrent(tensors):
        return _kind(tensors)
    weight = tensors.get("weight")
    if weight is None or not set(tensors) <= {"weight", "bias"} or 0 in weight.shape:
        return None
    if weight.ndim == 1 and "bias" in tensors:
        return "LayerNorm"
    if weight.ndim != 2:
        return None
    return "Embedding" if "bias" not in tensors and _is_embedding(path, weight, modules) else "Linear"


def _is_embedding(path: str, weight: Array, modules: Mapping[str, Tensors]) -> bool:
    """Whether a matrix without bias is an Embedding: its name says so, or it fits as nothing else."""
    sizes, is_named = _surroundings(modules)
    rows, columns = weight.shape
    gives = any(columns == features_in for features_in, _ in sizes)
    if re.search(_EMBEDDING, path):
        # It may still be a Linear with such a name: one that gives what a recurrent module takes.
        return gives or not any(rows == features_in for features_in, _ in sizes)
    return (
        gives
        and not is_named
        and not any(rows == features_in or columns == features_out for features_in, features_out in sizes)
    )


def _surroundings(modules: Mapping[str, Tensors]) -> tuple[set[tuple[int, int]], bool]:
    """Return what surrounds a module.

    These are the features that each recurrent module takes and gives, and whether any module has the name of
    an Embedding.
    """
    if not isinstance(modules, _Modules):
        modules = _Modules({path: dict(tensors) for path, tensors in modules.items()})
    if modules.surroundings is None:
        sizes = {_sizes(tensors) for tensors in modules.values() if _is_recurrent(tensors) and _kind(tensors)}
        is_named = any(
            re.search(_EMBEDDING, path) and "weight" in tensors for path, tensors in modules.items()
        )
        modules.surroundings = sizes, is_named
    return modules.surroundings


def _chain(modules: Mapping[str, Tensors], recurrent: str) -> tuple[list[str], str | None]:
    """Return the paths of Embedding, recurrent module and Linear in order; else why that is not plain."""
    tensors = modules[recurrent]
    if _kind(tensors) not in GATES:
        return [], f"weights of no known cell under {quote([recurrent])}: {_what_is_wrong(tensors)}"
    features_in, features_out = _sizes(tensors)
    before, after = [], []
    for path, others in modules.items():
        if path == recurrent:
            continue
        kind = _layer_kind(path, others, modules)
        weight: Any = others.get("weight")  # a matrix if the kind is one of these two
        named = f"{quote([path])}"
        if kind == "Embedding" and weight.shape[1] == features_in:
            if weight.shape[0] == features_in:
                return [], f"{named}, which may be an Embedding or a Linear"
            before.append(path)
        elif kind == "Linear" and weight.shape[1] == features_out and weight.shape[0] != features_in:
            after.append(path)
        elif kind == "Linear" and weight.shape[1] == features_out:
            return [], f"{named}, which fits before {quote([recurrent])} and after it"
        else:
            return [], f"{named} beside the recurrent module {quote([recurrent])}"
    for found in (before, after):
        if len(found) > 1:
            return [], f"the modules {quote(found)}, whose order no file says"
    chain = [*before, recurrent, *after]
    return chain, _gap(chain)


def _without_weights(path: str, modules: Mapping[str, Tensors]) -> str | None:
    """Return the path of the module before this one in an nn.Sequential if it has no weights, else None."""
    match = re.fullmatch(_NUMBERED, path)
    if match is None or int(match["number"]) == 0:
        return None
    before = f"{match['parent'] or ''}.{int(match['number']) - 1}".removeprefix(".")
    return None if any(other == before or other.startswith(f"{before}.") for other in modules) else before


def _gap(chain: list[str]) -> str | None:
    """Return a doubt if a numbered module is missing: it has no weights, but may compute something."""
    numbers: dict[str, list[int]] = {}
    for path in chain:
        match = re.fullmatch(_NUMBERED, path)
        if match:
            numbers.setdefault(match["parent"] or "", []).append(int(match["number"]))
    for parent, found in numbers.items():
        missing = [n for n in range(max(found) + 1) if n not in found]
        if missing:
            name = f"{parent}.{missing[0]}".removeprefix(".")
            return f"no weights of {quote([name])}, which may be an activation"
    return None
