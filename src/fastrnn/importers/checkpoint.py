"""The state dict in what a file holds, freed of wrappers and of the forms of training; and the rest."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np

from fastrnn.errors import Array, FormatError, brief, check_text, message, quote
from fastrnn.importers.quantised import is_packed, unpack
from fastrnn.importers.tensors import FREE_BYTES, MAX_DTYPES, MAX_SHARING, TensorView, Unread
from fastrnn.importers.values import Freezer, FrozenDict, Odd, PickledArray, StandIn
from fastrnn.parametrizations import PARAMETER, fold
from fastrnn.spec import is_recurrent_key, unread_error

# Where training scripts put a model's state dict.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
)  # fmt: skip
# DataParallel and the like put "module." before every key.
WRAPPER = "module."
# What wrappers put before or into a key: torch.compile, FSDP, activation checkpoints, Lightning's Fabric.
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# Beside the weights of torch.optim.swa_utils.AveragedModel.
COUNTER = "n_averaged"
# Beside the parameters of a module whose operations thop counted.
COUNTS = ("total_ops", "total_params")
EMPTY = "a parameter without numbers: they lie in other files, as with DeepSpeed's ZeRO stage 3"
MAX_DEPTH = 6
MAX_LIST = 64  # of a list that is looked into
MAX_NAME = 200
MAX_LEFT_OUT = 1000
# Of the tensors beside the state dict: what is read of them. The others may be asked for by `key`.
MAX_BESIDE = 64 * 2**20

_PARAMETER = re.compile(PARAMETER)
_TENSORS = (TensorView, Unread, PickledArray, np.ndarray)

# The keys to a place in a file; of a list the index.
Path: TypeAlias = tuple[Any, ...]
Tensor = TypeVar("Tensor")


class StateDict(dict[str, Array]):
    """torch's names to ndarrays, and beside them what the file held besides.

    Asking for a tensor that is in the file and could not be read is a WeightError that tells why.

    Attributes
    ----------
    file_format : str
        What kind of file it was.
    key : str
        Where in the file the state dict lay; "" at the top.
    left_out : dict of str to object
        Each thing that is not among the arrays, by its place in the file: plain values as they are, nested,
        read-only (numbers, texts, lists, dicts, sets, dates, NumPy arrays, tensors as arrays); a `StandIn`
        for anything else.
    unread : dict of str to str
        The tensors that could not be read, and why; they are in ``left_out`` too.
    folded : dict of str to str
        The parameters that training held in parts, and in which form: "weight norm".
    others : tuple of str
        The places of other state dicts in the file, whose names differ from these.
    metadata : dict of str to str
        The texts of a safetensors file.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        file_format: str,
        key: str = "",
        left_out: Mapping[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        *,
        unread: Mapping[str, str] | None = None,
        folded: Mapping[str, str] | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        super().__init__(arrays)
        self.file_format = file_format
        self.key = key
        self.left_out = FrozenDict(left_out or {})
        self.unread = dict(unread or {})
        self.folded = dict(folded or {})
        self.others = others
        self.metadata = metadata or {}

    def __missing__(self, name: object) -> NoReturn:
        if isinstance(name, str) and name in self.unread:
            raise unread_error("state_dict", name, self.unread[name])
        raise KeyError(name)


# ---------------------------------------------------------------- what is in a file


def find_state_dict(
    root: object,
    where: str,
    file_format: str,
    key: str | None = None,
    metadata: dict[str, str] | None = None,
) -> StateDict:
    """Find the state dict in an object of dicts, and make its arrays, by the names that the file gives them.

    Raises
    ------
    FormatError
        There is none, or there are several and no `key` picks one; or none of its tensors can be read.
    """
    if key is not None:
        path = _path(root, where, key)
        found = _entries(_at(root, path))
        if not _is_state_dict(found):
            _raise_none(_at(root, path), where, f"a state_dict at {quote([key])}")
        others: list[Path] = []
    else:
        path, found, others = _choose(root, where)
    tensors: dict[str, Any] = {}
    unread: dict[str, str] = {}
    rest: dict[Path, object] = {}
    for name, value in unpack(found).items():
        value = value.value() if isinstance(value, PickledArray) else value
        if isinstance(name, str) and isinstance(value, (TensorView, np.ndarray)):
            tensors[name] = value
            continue
        rest[(*path, name)] = value
        if isinstance(name, str) and (isinstance(value, Unread) or _is_parameter(name)):
            unread[name] = value.reason if isinstance(value, Unread) else describe(value)
    _check_sharing(tensors, where)
    arrays, errors = _read(tensors, where)
    unread |= {name: str(error) for name, error in errors.items()}
    rest |= {(*path, name): Unread(str(error)) for name, error in errors.items()}
    if errors and not arrays:
        raise next(iter(errors.values()))
    if unread and not arrays:
        name, why = next(iter(unread.items()))
        raise FormatError(message(where, "tensors that can be read", f"{brief(name)}: {why}"))
    rest |= _beside(root, path)
    return StateDict(
        arrays,
        file_format,
        _join(path),
        _left_out(rest, where),
        metadata,
        unread=unread,
        others=tuple(map(_join, others)),
    )


def _read(tensors: Mapping[str, Any], where: str) -> tuple[dict[str, Array], dict[str, FormatError]]:
    """The arrays of tensors, and of those that cannot be read the errors."""
    arrays, errors = {}, {}
    for name, value in tensors.items():
        try:
            arrays[name] = value.array(where, brief(name)) if isinstance(value, TensorView) else value
        except FormatError as error:
            errors[name] = error
    return arrays, errors


def _check_sharing(tensors: Mapping[str, Any], where: str) -> None:
    """Refuse views that share storages so often that copies of them would fill the memory."""
    views = [view for view in tensors.values() if isinstance(view, TensorView)]
    storages = {id(view.storage): view.storage for view in views}
    there = sum(storage.nbytes() for storage in storages.values())
    wanted = sum(view.nbytes() for view in views)
    if any(len(dtypes) > MAX_DTYPES for dtypes in _dtypes_of(views).values()):
        raise FormatError(message(where, f"a storage of at most {MAX_DTYPES} dtypes", "more"))
    # One that does not fit its own storage is named by itself.
    if len(views) > 1 and wanted > FREE_BYTES + MAX_SHARING * there:
        got = f"{len(views)} that share {len(storages)} storages"
        raise FormatError(message(where, "tensors that are mostly their own", got))


def _dtypes_of(views: list[TensorView]) -> dict[int, set[str]]:
    """The dtypes in which the views of each storage take it."""
    dtypes: dict[int, set[str]] = {}
    for view in views:
        dtypes.setdefault(id(view.storage), set()).add(view.dtype)
    return dtypes


def _beside(root: object, path: Path) -> dict[Path, object]:
    """What lies beside the way to the state dict."""
    rest: dict[Path, object] = {}
    for depth in range(len(path)):
        for name, value in _children(_at(root, path[:depth])):
            if name != path[depth]:
                rest[(*path[:depth], name)] = value
    return rest


def _left_out(rest: Mapping[Path, object], where: str) -> dict[str, Any]:
    """Everything but the arrays, as plain values that nobody can change."""
    room = MAX_BESIDE

    def tensor(view: object) -> object:
        nonlocal room
        if isinstance(view, TensorView):
            size = max(view.nbytes(), view.storage.nbytes())
            if size > room:
                return StandIn(f"{describe(view)}, not read; key= reads it")
            room -= size
            try:
                array = view.array(where, "tensor").view()
            except FormatError as error:
                return StandIn(f"{describe(view)}, not read: {error}")
            array.flags.writeable = False
            return array
        return StandIn(f"{view.reason}, not read" if isinstance(view, Unread) else type(view).__name__)

    freezer = Freezer(tensor)
    result = {_join(place): freezer.freeze(value) for place, value in list(rest.items())[:MAX_LEFT_OUT]}
    if len(rest) > MAX_LEFT_OUT:
        result["..."] = f"{len(rest) - MAX_LEFT_OUT} more"
    return result


# ---------------------------------------------------------------- as eval() would have it


def finish(where: str, state_dict: StateDict) -> StateDict:
    """The same with whole parameters, by the names of the module itself, without wrappers."""
    counters = {name: array for name, array in state_dict.items() if _is_counter(name, array)}
    if len(counters) < len(state_dict):
        for name in counters:
            del state_dict[name]
        state_dict.left_out = FrozenDict(state_dict.left_out | counters)
    folded = fold(where, state_dict)
    empty = {name: EMPTY for name, array in folded.tensors.items() if array.size == 0 and _is_parameter(name)}
    unread = state_dict.unread | empty | folded.refused
    names = _unwrapped([*folded.tensors, *unread])
    return StateDict(
        {names[name]: value for name, value in folded.tensors.items() if name not in empty},
        state_dict.file_format,
        state_dict.key,
        state_dict.left_out | {name: StandIn(why) for name, why in (empty | folded.refused).items()},
        state_dict.metadata,
        unread={names[name]: why for name, why in unread.items()},
        folded={names[name]: form for name, form in folded.forms.items()},
        others=state_dict.others,
    )


def _is_counter(name: str, array: Array) -> bool:
    """Whether it counts something beside the weights."""
    return array.size == 1 and (name == COUNTER or name.rpartition(".")[2] in COUNTS)


def _unwrapped(names: list[str]) -> dict[str, str]:
    """Each name without what wrappers put into it; as it was, where two would become one."""
    result = {name: ".".join(p for p in name.split(".") if p not in INNER_WRAPPERS) for name in names}
    while result and all(name.startswith(WRAPPER) for name in result.values()):
        result = {name: short.removeprefix(WRAPPER) for name, short in result.items()}
    return result if len(set(result.values())) == len(set(names)) else {name: name for name in names}


# ---------------------------------------------------------------- names and places


def describe(value: object) -> str:
    """What a value of a file is, in a few words."""
    if isinstance(value, TensorView):
        sizes = [brief(size) for size in value.size[:8]] + ["..."] * (len(value.size) > 8)
        return f"tensor ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
    if isinstance(value, Unread):
        return f"{value.reason} (not read)"
    if isinstance(value, StandIn):
        return f"{value.name} (not made)"
    if isinstance(value, np.ndarray):
        return f"array {value.shape} of {value.dtype}"
    if isinstance(value, (dict, list, tuple, frozenset)):
        kind = type(value).__name__.removeprefix("Frozen").lower().replace("frozenset", "set")
        is_model = _is_state_dict(value) and isinstance(value, dict) and _parameters(value)
        return f"{'another state dict' if is_model else kind} of {len(value)}"
    if hasattr(value, "text"):
        return str(value.text)
    if type(value).__module__ in ("datetime", "decimal"):
        return str(value)
    return brief(value)


def _join(path: Path) -> str:
    """A path of keys as text; a long one is cut."""
    parts = []
    for name in path:
        text = name if isinstance(name, str) else describe(name.value if isinstance(name, Odd) else name)
        parts.append(text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}...")
    return ".".join(parts)


def _is_parameter(name: str) -> bool:
    return _PARAMETER.fullmatch(name.rpartition(".")[2]) is not None


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and any(
        isinstance(name, str) and (isinstance(item, _TENSORS) or is_packed(item))
        for name, item in value.items()
    )


def _entries(value: object) -> Any:
    """What is as good as a dict as one: a dict or namespace of the file's own class, or a list of names and
    tensors; any other value as it is."""
    if isinstance(value, StandIn):
        if value.items and all(_is_pair(pair, object) for pair in value.items):
            return dict(value.items)
        if isinstance(value.state, dict) and not _is_module(value):
            inner = value.state.get("data")  # of a collections.UserDict
            return inner if isinstance(inner, dict) and len(value.state) == 1 else value.state
    if isinstance(value, list) and value and all(_is_pair(pair, (TensorView, Unread)) for pair in value):
        return dict(value)
    return value


def _is_pair(pair: object, kind: Any) -> bool:
    return (
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], kind)
    )


def _is_module(value: object) -> bool:
    """Whether it would have been a torch module."""
    return isinstance(value, StandIn) and isinstance(value.state, dict) and "_modules" in value.state


def _children(value: object) -> Iterator[tuple[Any, object]]:
    """The names, or the numbers in a short list, of what a value holds."""
    value = _entries(value)
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple)) and len(value) <= MAX_LIST:
        yield from enumerate(value)


def _at(root: object, path: Path) -> Any:
    for name in path:
        root = root[name] if isinstance(root, dict) else dict(_children(root))[name]
    return root


def _path(root: object, where: str, key: str) -> Path:
    """The path of a key, or of keys with dots between them, some of which may be in a key; or raise."""
    check_text(where, "key", key)
    path = () if key == "" else _find_path(root, key.split("."))
    if path is None:
        names = [_join((name,)) for name, _ in _children(root)][:20]
        got = f"only {quote(names)}" if names else "none"
        raise FormatError(message(where, f"the key {brief(key)}", got))
    return path


def _find_path(value: object, parts: list[str]) -> Path | None:
    if not parts:
        return ()
    by_text = {
        _join((name,)): (name, item) for name, item in _children(value) if isinstance(name, (str, int))
    }
    for count in range(len(parts), 0, -1):
        name, item = by_text.get(".".join(parts[:count]), (None, None))
        if name is not None and (rest := _find_path(item, parts[count:])) is not None:
            return (name, *rest)
    return None


# ---------------------------------------------------------------- which state dict it is


def _candidates(root: object) -> tuple[dict[Path, dict[Any, Any]], list[Path]]:
    """Every dict of tensors down to a small depth: paths to dicts; and the paths of whole modules.
    Optimizers are passed over."""
    found: dict[Path, dict[Any, Any]] = {}
    modules: list[Path] = []
    seen: set[int] = set()
    level: list[tuple[Path, Any]] = [((), root)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[Path, Any]] = []
        for path, value in level:
            if id(value) in seen:
                continue
            seen.add(id(value))
            if _is_module(value):
                modules.append(path)
                continue
            entries = _entries(value)
            if isinstance(entries, dict) and "param_groups" in entries:
                continue
            if _is_state_dict(entries):
                found[path] = entries
            below += [
                ((*path, name), item)
                for name, item in _children(value)
                if isinstance(name, (str, int)) and isinstance(item, (dict, list, tuple, StandIn))
            ]
        level = below
    return found, modules


def _choose(root: object, where: str) -> tuple[Path, dict[Any, Any], list[Path]]:
    """The one state dict that a file is about: its path and itself; and the paths of others."""
    found, modules = _candidates(root)
    if not found:
        _raise_none(root, where, "a state_dict")
    usual = {path for path in found if path and path[-1] in USUAL_KEYS}
    recurrent = {
        path
        for path, value in found.items()
        if any(isinstance(name, str) and is_recurrent_key(name) for name in value)
    }
    best = usual & recurrent or recurrent or usual or found.keys()
    chosen = [path for path in found if path in best]
    if len(chosen) == 1:
        (path,) = chosen
        names = _parameters(found[path])
        others = [
            other
            for other, value in found.items()
            if other != path and _parameters(value) and not _parameters(value) <= names
        ]
        return path, found[path], others + modules
    names_of = [_join(path) for path in chosen[:20]]
    keys = [name for name in names_of if not name or _find_path(root, name.split("."))]
    hint = f"Pick one with key={quote(keys[-1:])}." if keys else ""
    raise FormatError(message(where, "one state_dict", f"{len(chosen)}: {quote(names_of)}", hint))


def _parameters(state_dict: dict[Any, Any]) -> set[str]:
    return {name for name in state_dict if isinstance(name, str) and _is_parameter(name)}


def _raise_none(found: object, where: str, expected: str) -> NoReturn:
    module = _first_stand_in(found)
    if module is not None:
        if module.name.endswith(".getattr") and module.arguments[1:] == ("state_dict",):
            got = "the method model.state_dict, which was not called"
            hint = 'Save what it gives: torch.save(model.state_dict(), "weights.pt").'
            raise FormatError(message(where, expected, got, hint))
        hint = (
            "Such a file needs the code of its class, and runs it. Where you trust it and have "
            "that code, save its weights once: torch.save(torch.load(path, weights_only=False)"
            '.state_dict(), "weights.pt") (take the module out of a dict first), and load that file.'
        )
        got = f"a whole pickled module or object ({module.name})"
        raise FormatError(message(where, expected, got, hint))
    hint = "In the program that made it, save model.state_dict(): its names tell which tensor is which."
    if isinstance(found, TensorView):
        raise FormatError(message(where, expected, f"a single {describe(found)}", hint))
    if isinstance(found, (list, tuple)) and any(isinstance(item, (TensorView, Unread)) for item in found):
        raise FormatError(message(where, expected, f"a list of {len(found)} tensors without names", hint))
    raise FormatError(message(where, expected, describe(found)))


def _first_stand_in(found: object) -> StandIn | None:
    if isinstance(found, StandIn):
        return found
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    stand_ins = [value for value in values if isinstance(value, StandIn)]
    return next(iter([value for value in stand_ins if _is_module(value)] or stand_ins), None)
