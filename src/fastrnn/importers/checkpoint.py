"""Finds the state dict in what a file holds, reads its arrays within bounds, and keeps the rest."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn, TypeAlias

import numpy as np

from fastrnn.errors import Array, FormatError, brief, check_text, message, quote
from fastrnn.importers.quantised import is_packed, unpack
from fastrnn.importers.source import Window
from fastrnn.importers.state_dict import LeftOut, StateDict, describe
from fastrnn.importers.tensors import FREE_BYTES, MAX_DTYPES, MAX_EXPANDED, MAX_SHARING, TensorView, Unread
from fastrnn.importers.values import Foreign, Freezer, Name, Odd, PickledArray, StandIn
from fastrnn.parametrizations import is_parameter
from fastrnn.spec import is_recurrent_key

# Where training scripts put a model's state dict.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
)  # fmt: skip
MAX_DEPTH = 6
MAX_LIST = 64  # of a list that is looked into
MAX_NAME = 200
MAX_LEFT_OUT = 1000
_TENSORS = (TensorView, Unread, PickledArray, np.ndarray)

# The keys to a place in a file; of a list the index.
Path: TypeAlias = tuple[Any, ...]


# ---------------------------------------------------------------- what is in a file


def find_state_dict(
    root: object,
    where: str,
    file_format: str,
    key: str | None = None,
    metadata: dict[str, str] | None = None,
    window: Window | None = None,
) -> StateDict:
    """Find the state dict in an object of dicts, and make its arrays, by the names that the file gives them.

    Parameters
    ----------
    root : object
        What the file holds, as its reader made it.
    where : str
        The file's name, for messages.
    file_format : str
    key : str, optional
        The place of the state dict.
    metadata : dict of str to str, optional
    window : Window, optional
        The file, where tensors are read from it when they are asked for.

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
        elif isinstance(name, str) and (isinstance(value, Unread) or is_parameter(name)):
            unread[name] = value.reason if isinstance(value, Unread) else _what_is(value)
        else:
            rest[(*path, name)] = value
    arrays = _read(tensors, unread, where)
    stand_ins = {_join((*path, name)): StandIn("torch.Tensor", reason=why) for name, why in unread.items()}
    rest |= _beside(root, path)
    return StateDict(
        arrays,
        file_format,
        _join(path),
        _left_out(rest, where, window) | stand_ins,
        metadata,
        unread=unread,
        others=tuple(map(_join, others)),
    )


def _read(tensors: Mapping[str, Any], unread: dict[str, str], where: str) -> dict[str, Array]:
    """The arrays of tensors; those that cannot be read go to `unread`. It is an error if none can."""
    _check_sharing(tensors, where)
    arrays: dict[str, Array] = {}
    first: FormatError | None = None
    room = MAX_EXPANDED
    for name, value in tensors.items():
        try:
            array = value.array(where, brief(name)) if isinstance(value, TensorView) else value
            if isinstance(value, TensorView) and value.is_expanded():
                room -= value.nbytes()
                if room < 0:
                    expected = f"expanded tensors of at most {MAX_EXPANDED} bytes"
                    raise FormatError(message(where, expected, f"{value.nbytes()} more"))
            arrays[name] = array
        except FormatError as error:
            first = first or error
            unread[name] = str(error)
    if first is not None and not arrays:
        raise first
    if unread and not arrays:
        name, why = next(iter(unread.items()))
        raise FormatError(message(where, "tensors that can be read", f"{brief(name)}: {why}"))
    return arrays


def _check_sharing(tensors: Mapping[str, Any], where: str) -> None:
    """Refuse views that share storages so often that copies of them would fill the memory."""
    views = [view for view in tensors.values() if isinstance(view, TensorView) and not view.is_expanded()]
    storages = {id(view.storage): view.storage for view in views}
    there = sum(storage.nbytes() for storage in storages.values())
    wanted = sum(view.nbytes() for view in views)
    if any(len(dtypes) > MAX_DTYPES for dtypes in _dtypes_of(views).values()):
        raise FormatError(message(where, f"a storage of at most {MAX_DTYPES} dtypes", "more"))
    # One that does not fit its own storage is named by itself.
    if len(views) > 1 and wanted > FREE_BYTES + MAX_SHARING * there:
        got = f"{len(views)} of {wanted} bytes on storages of {there}"
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


def _left_out(rest: Mapping[Path, object], where: str, window: Window | None) -> LeftOut:
    """Everything but the arrays, as plain values that nobody can change; each made when it is asked for."""
    freezer = Freezer(partial(_frozen_tensor, where))

    def make(value: object) -> Any:
        session: AbstractContextManager[None] = nullcontext() if window is None else window.reopened()
        with session:
            return freezer.freeze(value)

    makers: dict[str, Any] = {}
    for place, value in list(rest.items())[:MAX_LEFT_OUT]:
        name = _join(place)
        while name in makers:  # as keys 1 and "1" have it
            name += "'"
        makers[name] = partial(make, value)
    more = {"...": f"{len(rest) - MAX_LEFT_OUT} more"} if len(rest) > MAX_LEFT_OUT else {}
    return LeftOut(more, makers)


def _frozen_tensor(where: str, value: object) -> object:
    """A tensor beside the state dict as a read-only array, or a stand-in."""
    if isinstance(value, TensorView):
        try:
            array = value.array(where, "tensor").view()
        except FormatError as error:
            return StandIn("torch.Tensor", reason=str(error))
        array.flags.writeable = False
        return array
    reason = value.reason if isinstance(value, Unread) else ""
    return StandIn("torch.Tensor" if reason else type(value).__name__, reason=reason)


# ---------------------------------------------------------------- names and places


def _what_is(value: object) -> str:
    """What a reader made of something in a file, in a few words."""
    if isinstance(value, TensorView):
        sizes = [brief(size) for size in value.size[:8]] + ["..."] * (len(value.size) > 8)
        return f"tensor ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
    if isinstance(value, Unread):
        return f"{value.reason} (not read)"
    if isinstance(value, Foreign):
        return f"{value.name} (not made)"
    if isinstance(value, Name):
        return value.text
    return describe(value)


def _join(path: Path) -> str:
    """A path of keys as text; a long one is cut."""
    parts = []
    for name in path:
        text = name if isinstance(name, str) else _what_is(name.value if isinstance(name, Odd) else name)
        parts.append(text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}...")
    return ".".join(parts)


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and any(
        isinstance(name, str) and (isinstance(item, _TENSORS) or is_packed(item))
        for name, item in value.items()
    )


def _entries(value: object) -> Any:
    """What is as good as a dict as one: a dict or namespace of the file's own class, or a list of names and
    tensors; any other value as it is."""
    if isinstance(value, Foreign):
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
    return isinstance(value, Foreign) and isinstance(value.state, dict) and "_modules" in value.state


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
                if isinstance(name, (str, int)) and isinstance(item, (dict, list, tuple, Foreign))
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
    return {name for name in state_dict if isinstance(name, str) and is_parameter(name)}


def _raise_none(found: object, where: str, expected: str) -> NoReturn:
    module = _first_foreign(found)
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
        raise FormatError(message(where, expected, f"a single {_what_is(found)}", hint))
    if isinstance(found, (list, tuple)) and any(isinstance(item, (TensorView, Unread)) for item in found):
        raise FormatError(message(where, expected, f"a list of {len(found)} tensors without names", hint))
    raise FormatError(message(where, expected, _what_is(found)))


def _first_foreign(found: object) -> Foreign | None:
    if isinstance(found, Foreign):
        return found
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    foreign = [value for value in values if isinstance(value, Foreign)]
    return next(iter([value for value in foreign if _is_module(value)] or foreign), None)
