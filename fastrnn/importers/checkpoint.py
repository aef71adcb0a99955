"""Finds the state dict in what a file holds, reads its arrays within bounds, and keeps the rest."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import check_text
from fastrnn.errors import FormatError, brief, literal, message, quote
from fastrnn.importers.parameters import is_recurrent_key
from fastrnn.importers.parametrizations import is_parameter
from fastrnn.importers.places import (
    Path,
    at,
    candidates,
    children,
    entries,
    find_path,
    is_module,
    is_state_dict,
    join,
    other_weights,
    what_is,
)
from fastrnn.importers.quantised import unpack
from fastrnn.importers.source import Window
from fastrnn.importers.state_dict import LeftOut, StateDict
from fastrnn.importers.tensors import (
    FREE_BYTES,
    MAX_DTYPES,
    MAX_EXPANDED,
    MAX_SHARING,
    TensorView,
    Unread,
)
from fastrnn.importers.values import Foreign, Freezer, PickledArray, StandIn

# Where training scripts put a model's state dict.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
)  # fmt: skip
MAX_LEFT_OUT = 1000


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
        found = entries(at(root, path))
        if not is_state_dict(found):
            _raise_none(at(root, path), where, f"a state_dict at {quote([key])}")
        others: list[Path] = []
    else:
        path, found = _choose(root, where)
        others = other_weights(root, path)
    tensors: dict[str, Any] = {}
    unread: dict[str, str] = {}
    rest: dict[Path, object] = {}
    for name, value in unpack(found).items():
        value = value.value() if isinstance(value, PickledArray) else value
        is_real = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        text = name if isinstance(name, str) else join((name,))
        if isinstance(name, str) and (isinstance(value, TensorView) or is_real):
            tensors[name] = value
        elif isinstance(value, Unread):
            unread[text] = value.reason
        elif is_parameter(text) or isinstance(value, TensorView):
            unread[text] = what_is(value) if isinstance(name, str) else "its name is no text"
        else:
            rest[(*path, name)] = value
    arrays = _read(tensors, unread, where)
    stand_ins = {join((*path, name)): StandIn("torch.Tensor", reason=why) for name, why in unread.items()}
    rest |= _beside(root, path)
    return StateDict(
        arrays,
        file_format,
        join(path),
        _left_out(rest, where, window) | stand_ins,
        metadata,
        unread=unread,
        others=tuple(map(join, others)),
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
                room -= value.nbytes
                if room < 0:
                    expected = f"expanded tensors of at most {MAX_EXPANDED} bytes"
                    raise FormatError(message(where, expected, f"{value.nbytes} more"))
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
    storages = {id(view.storage.whole): view.storage.whole for view in views}
    there = sum(storage.nbytes() for storage in storages.values())
    wanted = sum(view.nbytes for view in views)
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
        dtypes.setdefault(id(view.storage.whole), set()).add(view.dtype)
    return dtypes


def _beside(root: object, path: Path) -> dict[Path, object]:
    """What lies beside the way to the state dict."""
    rest: dict[Path, object] = {}
    for depth in range(len(path)):
        for name, value in children(at(root, path[:depth])):
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
        name = join(place)
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


# ---------------------------------------------------------------- which state dict it is


def _path(root: object, where: str, key: str) -> Path:
    """The path of a key; or raise."""
    path = find_path(root, check_text(where, "key", key))
    if path is None:
        names = [join((name,)) for name, _ in children(root)][:20]
        got = f"only {quote(names)}" if names else "none"
        raise FormatError(message(where, f"the key {brief(key)}", got))
    return path


def _choose(root: object, where: str) -> tuple[Path, dict[Any, Any]]:
    """The one state dict that a file is about: its path and itself."""
    found = candidates(root)
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
        return chosen[0], found[chosen[0]]
    names = [join(path) for path in chosen[:20]]
    keys = [join(path) for path in chosen[:20] if find_path(root, join(path)) == path]
    hint = f"Pick one with key=, as key={literal(keys[-1])}." if keys else ""
    raise FormatError(message(where, "one state_dict", f"{len(chosen)}: {quote(names)}", hint))


def _raise_none(found: object, where: str, expected: str) -> NoReturn:
    module = _first_foreign(found)
    if module is not None:
        if module.name.endswith(".getattr") and _is_text(module.arguments[1:], "state_dict"):
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
        raise FormatError(message(where, expected, f"a single {what_is(found)}", hint))
    if isinstance(found, (list, tuple)) and any(isinstance(item, (TensorView, Unread)) for item in found):
        raise FormatError(message(where, expected, f"a list of {len(found)} tensors without names", hint))
    raise FormatError(message(where, expected, what_is(found)))


def _is_text(arguments: tuple[Any, ...], text: str) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], str) and arguments[0] == text


def _first_foreign(found: object) -> Foreign | None:
    if isinstance(found, Foreign):
        return found
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    foreign = [value for value in values if isinstance(value, Foreign)]
    return next(iter([value for value in foreign if is_module(value)] or foreign), None)
