"""From what a file holds to a StateDict: which state dict is chosen, its arrays, and the rest.

No format is parsed here. `torch_file`, `safetensors_file` and `numpy_file` make what `find_state_dict` takes.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import check_text
from fastrnn.errors import FormatError, brief, literal, message, quote
from fastrnn.importers.checkpoint_tree import (
    Path,
    candidates,
    children,
    dotted,
    entries,
    find_path,
    is_module,
    is_state_dict,
    other_weights,
    value_at,
    what_is,
)
from fastrnn.importers.parameters import is_recurrent_key
from fastrnn.importers.parametrizations import is_parameter
from fastrnn.importers.quantised import unpack
from fastrnn.importers.source import BoundedFile
from fastrnn.importers.state_dict import LeftOut, StandIn, StateDict
from fastrnn.importers.tensors import (
    FREE_BYTES,
    MAX_EXPANDED,
    MAX_SHARING,
    TensorView,
    Unread,
    check_dtypes,
)
from fastrnn.importers.values import Foreign, Freezer, PickledArray
from fastrnn.narrow import NarrowWeight

# The keys under which training scripts save a model's state dict.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
)  # fmt: skip
MAX_LEFT_OUT = 1000


# ---------------------------------------------------------------- the whole way


def find_state_dict(
    root: object,
    where: str,
    file_format: str,
    key: str | None = None,
    metadata: dict[str, str] | None = None,
    file: BoundedFile | None = None,
) -> StateDict:
    """Find the state dict in what a file holds, and read its arrays. Names stay as they are in the file.

    Parameters
    ----------
    root : object
        What the file holds, as its reader made it.
    where : str
        The file's name, for messages.
    file_format : str
    key : str, optional
        The path of the state dict.
    metadata : dict of str to str, optional
    file : BoundedFile, optional
        The file, if tensors beside the state dict are to be read when they are asked for.

    Raises
    ------
    FormatError
        There is no state dict, or there are several and no `key`, or none of the tensors can be read.
    """
    if key is not None:
        path = _path(root, where, key)
        found = entries(value_at(root, path))
        if not is_state_dict(found):
            _raise_none(value_at(root, path), where, f"a state_dict at {quote([key])}")
        others: list[Path] = []
    else:
        path, found = _choose(root, where)
        others = other_weights(root, path)
    tensors: dict[str, Any] = {}
    unread: dict[str, str] = {}
    rest: dict[Path, object] = {}
    for name, value in unpack(found).items():
        value = value.value() if isinstance(value, PickledArray) else value
        is_real = isinstance(value, NarrowWeight) or (
            isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        )
        text = name if isinstance(name, str) else dotted((name,))
        if isinstance(name, str) and (isinstance(value, TensorView) or is_real):
            tensors[name] = value
        elif isinstance(value, Unread):
            unread[text] = value.reason
        elif is_parameter(text) or isinstance(value, TensorView):
            unread[text] = what_is(value) if isinstance(name, str) else "its name is not text"
        else:
            rest[(*path, name)] = value
    arrays = _read(tensors, unread, where)
    stand_ins = {dotted((*path, name)): StandIn("torch.Tensor", reason=why) for name, why in unread.items()}
    rest |= _beside(root, path)
    return StateDict(
        arrays,
        file_format,
        dotted(path),
        _left_out(rest, where, file) | stand_ins,
        metadata,
        unread=unread,
        others=tuple(map(dotted, others)),
    )


# ---------------------------------------------------------------- the arrays of a state dict


def _read(tensors: Mapping[str, Any], unread: dict[str, str], where: str) -> dict[str, Array]:
    """Return arrays of tensors. What cannot be read goes to `unread`. Raise FormatError if nothing can."""
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
    """Raise FormatError if copies of the views would take far more memory than the storages they share."""
    views = [view for view in tensors.values() if isinstance(view, TensorView) and not view.is_expanded()]
    storages = {id(view.storage.whole): view.storage.whole for view in views}
    there = sum(storage.nbytes() for storage in storages.values())
    wanted = sum(view.nbytes for view in views)
    for dtypes in _dtypes_of(views).values():
        check_dtypes(where, dtypes)
    # A single view that does not fit its storage is reported when it is read, by its name.
    if len(views) > 1 and wanted > FREE_BYTES + MAX_SHARING * there:
        got = f"{len(views)} of {wanted} bytes in storages of {there} bytes"
        raise FormatError(message(where, "tensors that share little memory", got))


def _dtypes_of(views: list[TensorView]) -> dict[int, set[str]]:
    """Return the dtypes of the views of each storage, by the id of the storage."""
    dtypes: dict[int, set[str]] = {}
    for view in views:
        dtypes.setdefault(id(view.storage.whole), set()).add(view.dtype)
    return dtypes


# ---------------------------------------------------------------- the rest of a file


def _beside(root: object, path: Path) -> dict[Path, object]:
    """Return what lies beside the state dict, and beside each dict on the way to it."""
    rest: dict[Path, object] = {}
    for depth in range(len(path)):
        for name, value in children(value_at(root, path[:depth])):
            if name != path[depth]:
                rest[(*path[:depth], name)] = value
    return rest


def _left_out(rest: Mapping[Path, object], where: str, file: BoundedFile | None) -> LeftOut:
    """Return the rest as read-only plain values, each of which is made when it is asked for."""
    freezer = Freezer(partial(_frozen_tensor, where))

    def make(value: object) -> Any:
        session: AbstractContextManager[None] = nullcontext() if file is None else file.reopened()
        with session:
            return freezer.freeze(value)

    makers: dict[str, Any] = {}
    for path, value in list(rest.items())[:MAX_LEFT_OUT]:
        name = dotted(path)
        while name in makers:  # the keys 1 and "1" have the same name
            name += "'"
        makers[name] = partial(make, value)
    more = {"...": f"{len(rest) - MAX_LEFT_OUT} more"} if len(rest) > MAX_LEFT_OUT else {}
    return LeftOut(more, makers)


def _frozen_tensor(where: str, value: object) -> object:
    """Return a tensor beside the state dict as a read-only array or a stand-in."""
    if isinstance(value, TensorView):
        try:
            array = value.array(where, "tensor").view()
        except FormatError as error:
            return StandIn("torch.Tensor", reason=str(error))
        array.flags.writeable = False
        return array
    reason = value.reason if isinstance(value, Unread) else ""
    return StandIn("torch.Tensor" if reason else type(value).__name__, reason=reason)


# ---------------------------------------------------------------- which state dict is chosen


def _path(root: object, where: str, key: str) -> Path:
    """Return the path of a key; raise FormatError if there is none."""
    path = find_path(root, check_text(where, "key", key))
    if path is None:
        names = [dotted((name,)) for name, _ in children(root)][:20]
        got = f"only {quote(names)}" if names else "none"
        raise FormatError(message(where, f"the key {brief(key)}", got))
    return path


def _choose(root: object, where: str) -> tuple[Path, dict[Any, Any]]:
    """Return the path of the only state dict that a file can be meant for, and the state dict."""
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
    names = [dotted(path) for path in chosen[:20]]
    keys = [dotted(path) for path in chosen[:20] if find_path(root, dotted(path)) == path]
    hint = f"Pick one with key=, for example key={literal(keys[-1])}." if keys else ""
    raise FormatError(message(where, "one state_dict", f"{len(chosen)}: {quote(names)}", hint))


def _raise_none(found: object, where: str, expected: str) -> NoReturn:
    """Raise the FormatError of a value that holds no state dict, which says what it is instead."""
    module = _first_foreign(found)
    if module is not None:
        if module.name.endswith(".getattr") and _is_text(module.arguments[1:], "state_dict"):
            got = "the method model.state_dict, which was not called"
            hint = 'Call it: torch.save(model.state_dict(), "weights.pt").'
            raise FormatError(message(where, expected, got, hint))
        hint = (
            "Loading it needs the code of its class, and runs code from the file. If you trust the file and "
            "have that code, save the weights once: torch.save(torch.load(path, weights_only=False)"
            '.state_dict(), "weights.pt") (if it is a dict, take the module out first). Then load that file.'
        )
        got = f"a whole pickled module or object ({module.name})"
        raise FormatError(message(where, expected, got, hint))
    hint = "In the program that made it, save model.state_dict(). Its names say which tensor is which."
    if isinstance(found, TensorView):
        raise FormatError(message(where, expected, f"a single {what_is(found)}", hint))
    if isinstance(found, (list, tuple)) and any(isinstance(item, (TensorView, Unread)) for item in found):
        raise FormatError(message(where, expected, f"a list of {len(found)} tensors without names", hint))
    raise FormatError(message(where, expected, what_is(found)))


def _is_text(arguments: tuple[Any, ...], text: str) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], str) and arguments[0] == text


def _first_foreign(found: object) -> Foreign | None:
    """Return the value, or the first of its items, that a call of the file's own code would have made."""
    if isinstance(found, Foreign):
        return found
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    foreign = [value for value in values if isinstance(value, Foreign)]
    return next(iter([value for value in foreign if is_module(value)] or foreign), None)
