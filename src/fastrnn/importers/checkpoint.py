"""The state dict in what a file holds: found, freed of wrappers, and what was left out."""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np

from fastrnn.errors import Array, FormatError, brief, check_text, message, quote
from fastrnn.importers.pickle_reader import Name, Odd, StandIn
from fastrnn.importers.tensors import TensorView, itemsize
from fastrnn.spec import is_recurrent_key

# Where training scripts put a model's state dict.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
)  # fmt: skip
# DistributedDataParallel and torch.compile put these before every key.
WRAPPERS = ("module.", "_orig_mod.")
MAX_DEPTH = 3
MAX_NAME = 200
MAX_LEFT_OUT = 1000
# Tied weights and views of one flat parameter share storages; a thousand whole copies do not.
MAX_SHARING = 8
FREE_BYTES = 16 * 2**20

# The keys to a place in a file.
Path: TypeAlias = tuple[Any, ...]
Tensor = TypeVar("Tensor")


class StateDict(dict[str, Array]):
    """torch's names to ndarrays, and beside them what the file held besides.

    Attributes
    ----------
    file_format : str
        What kind of file it was.
    key : str
        Where in the file the state dict lay; "" at the top.
    left_out : dict of str to str
        Each thing that is not among the arrays, and what it is.
    metadata : dict of str to str
        The texts of a safetensors file.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        file_format: str,
        key: str = "",
        left_out: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(arrays)
        self.file_format = file_format
        self.key = key
        self.left_out = left_out or {}
        self.metadata = metadata or {}


def find_state_dict(
    root: object,
    where: str,
    file_format: str,
    key: str | None = None,
    metadata: dict[str, str] | None = None,
) -> StateDict:
    """Find the state dict in an object of dicts, and make its arrays.

    Raises
    ------
    FormatError
        There is none, or there are several and no `key` picks one.
    """
    if key is not None:
        path = _path(root, where, key)
        found = _at(root, path)
        if not _is_state_dict(found):
            _raise_none(found, where, f'a state_dict at "{key}"')
    else:
        path, found = _choose(root, where)
    tensors: dict[str, TensorView | Array] = {}
    rest: dict[Path, object] = {}
    for name, value in found.items():
        if isinstance(name, str) and isinstance(value, (TensorView, np.ndarray)):
            tensors[name] = value
        else:
            rest[(*path, name)] = value
    arrays = {
        name: value.array(where, brief(name)) if isinstance(value, TensorView) else value
        for name, value in _unwrap(tensors).items()
    }
    _check_overlap(tensors, where)
    for depth in range(len(path)):
        for name, value in _at(root, path[:depth]).items():
            if name != path[depth]:
                rest[(*path[:depth], name)] = value
    left_out = {_join(place): describe(value) for place, value in list(rest.items())[:MAX_LEFT_OUT]}
    if len(rest) > MAX_LEFT_OUT:
        left_out["..."] = f"{len(rest) - MAX_LEFT_OUT} more"
    return StateDict(arrays, file_format, _join(path), left_out, metadata)


def _check_overlap(tensors: Mapping[str, TensorView | Array], where: str) -> None:
    """Refuse views that share storages so often that copies of them would fill the memory."""
    views = [view for view in tensors.values() if isinstance(view, TensorView)]
    storages = {id(view.storage): view.storage for view in views}
    there = sum(storage.count * itemsize(storage.dtype) for storage in storages.values())
    wanted = sum(view.nbytes() for view in views)
    if wanted > FREE_BYTES + MAX_SHARING * there:
        got = f"{len(views)} that share {len(storages)} storages"
        raise FormatError(message(where, "tensors that are mostly their own", got))


def describe(value: object) -> str:
    """What a value of a file is, in a few words."""
    if isinstance(value, TensorView):
        sizes = [brief(size) for size in value.size[:8]] + ["..."] * (len(value.size) > 8)
        return f"tensor ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
    if isinstance(value, StandIn):
        return f"{value.name} (not read)"
    if isinstance(value, (dict, list, tuple)):
        what = "another state dict" if _is_state_dict(value) else type(value).__name__
        return f"{what} of {len(value)}"
    if isinstance(value, Name):
        return value.text
    return brief(value)


def _join(path: Path) -> str:
    """A path of keys as text; a long one is cut."""
    parts = []
    for name in path:
        text = name if isinstance(name, str) else describe(name.value if isinstance(name, Odd) else name)
        parts.append(text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}...")
    return ".".join(parts)


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and any(
        isinstance(name, str) and isinstance(item, (TensorView, np.ndarray)) for name, item in value.items()
    )


def _at(root: Any, path: Path) -> Any:
    for name in path:
        root = root[name]
    return root


def _path(root: object, where: str, key: str) -> Path:
    """The path of a key, or of keys with dots between them; or raise."""
    if isinstance(root, dict) and check_text(where, "key", key) in root:
        return (key,)
    found: Any = root
    path = tuple(key.split("."))
    for part in path:
        if not isinstance(found, dict) or part not in found:
            names = [n for n in found if isinstance(n, str)][:20] if isinstance(found, dict) else []
            got = f"only {quote(map(_cut, names))}" if names else "none"
            raise FormatError(message(where, f"the key {brief(key)}", got))
        found = found[part]
    return path


def _cut(name: str) -> str:
    return _join((name,))


def _candidates(root: object) -> dict[Path, dict[Any, Any]]:
    """Every dict of tensors down to a small depth: paths to dicts. Optimizers are passed over."""
    found: dict[Path, dict[Any, Any]] = {}
    seen: set[int] = set()
    level: list[tuple[Path, object]] = [((), root)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[Path, object]] = []
        for path, value in level:
            if id(value) in seen or not isinstance(value, dict) or "param_groups" in value:
                continue
            seen.add(id(value))
            if _is_state_dict(value):
                found[path] = value
            below += [
                ((*path, name), item)
                for name, item in value.items()
                if isinstance(name, str) and isinstance(item, dict)
            ]
        level = below
    return found


def _choose(root: object, where: str) -> tuple[Path, dict[Any, Any]]:
    """The one state dict that a file is about: its path and itself."""
    found = _candidates(root)
    if not found:
        _raise_none(root, where, "a state_dict")
    usual = [path for path in found if path and path[-1] in USUAL_KEYS]
    recurrent = [
        path
        for path, value in found.items()
        if any(isinstance(name, str) and is_recurrent_key(name) for name in value)
    ]
    chosen = usual or recurrent or list(found)
    if len(chosen) == 1:
        return chosen[0], found[chosen[0]]
    names = [_join(path) or "(top)" for path in chosen[:20]]
    hint = f'Pick one with key="{names[-1]}".'
    raise FormatError(message(where, "one state_dict", f"{len(chosen)}: {quote(names)}", hint))


def _raise_none(found: object, where: str, expected: str) -> NoReturn:
    module = _first_stand_in(found)
    if module is not None:
        hint = (
            "Such a file needs the code of its class, and runs it. Where you trust it and have "
            "that code, save its weights once: torch.save(torch.load(path, weights_only=False)"
            '.state_dict(), "weights.pt") (take the module out of a dict first), and load that file.'
        )
        got = f"a whole pickled module or object ({module.name})"
        raise FormatError(message(where, expected, got, hint))
    raise FormatError(message(where, expected, describe(found)))


def _first_stand_in(found: object) -> StandIn | None:
    if isinstance(found, StandIn):
        return found
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    stand_ins = [value for value in values if isinstance(value, StandIn)]
    with_state = [value for value in stand_ins if isinstance(value.state, dict) and "_modules" in value.state]
    return next(iter(with_state or stand_ins), None)


def _unwrap(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in WRAPPERS * 2:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors
