"""What a file holds, as a tree of dicts and lists: what each value is, paths of keys, where the weights are.

The tree is only looked at, within bounds on its depth and size. Which state dict is chosen, and what becomes
of the rest, is decided in `checkpoint`.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastrnn.errors import brief
from fastrnn.importers.parametrizations import is_parameter
from fastrnn.importers.quantised import is_packed, unpack
from fastrnn.importers.state_dict import describe
from fastrnn.importers.tensors import TensorView, Unread
from fastrnn.importers.values import Foreign, Name, OddKey, PickledArray
from fastrnn.narrow import NarrowWeight

MAX_DEPTH = 6  # of a state dict in the file
MAX_LIST = 64  # items of a list that may hold a state dict
MAX_NAME = 200  # characters of a key in a message
MAX_FOUND = 20  # reported paths of other weights in the file

TENSORS = (TensorView, Unread, PickledArray, np.ndarray, NarrowWeight)

# The keys that lead to a value, or the indices of lists.
Path: TypeAlias = tuple[Any, ...]


# ---------------------------------------------------------------- what a value is


def what_is(value: object) -> str:
    """Describe a value as its reader made it, in a few words."""
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


def is_module(value: object) -> bool:
    """Whether a value would have been a torch module."""
    return isinstance(value, Foreign) and isinstance(value.state, dict) and "_modules" in value.state


def is_optimizer(value: object) -> bool:
    """Whether a value is the state dict of an optimizer, whose tensors have the shapes of the weights."""
    return isinstance(value, dict) and "param_groups" in value


def is_state_dict(value: object) -> bool:
    """Whether a value is a dict of tensors by name."""
    return isinstance(value, dict) and any(
        isinstance(name, str) and (isinstance(item, TENSORS) or is_packed(item))
        for name, item in value.items()
    )


def entries(value: object) -> Any:
    """Return a dict for whatever serves as one; any other value as it is.

    A dict or namespace of a class that only the file knows serves as a dict, and so does a list of (name,
    tensor) pairs.
    """
    if isinstance(value, Foreign):
        if value.items and all(_is_pair(pair, object) for pair in value.items):
            return dict(value.items)
        if isinstance(value.state, dict) and not is_module(value):
            inner = value.state.get("data")  # the dict of a collections.UserDict
            return inner if isinstance(inner, dict) and len(value.state) == 1 else value.state
    if isinstance(value, list) and value and all(_is_pair(pair, (TensorView, Unread)) for pair in value):
        pairs = dict(value)
        return pairs if len(pairs) == len(value) else value
    return value


def _is_pair(pair: object, kind: Any) -> bool:
    match pair:
        case (str(), value):
            return isinstance(value, kind)
    return False


def children(value: object) -> Iterator[tuple[Any, object]]:
    """Yield what a value holds: key and item of a dict, index and item of a short list."""
    value = entries(value)
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple)) and len(value) <= MAX_LIST:
        yield from enumerate(value)


# ---------------------------------------------------------------- paths


def dotted(path: Path) -> str:
    """Return a path as text, its keys with dots between them. Long keys are cut."""
    return ".".join(name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..." for name in map(_text, path))


def _text(name: Any) -> str:
    return name if isinstance(name, str) else what_is(name.value if isinstance(name, OddKey) else name)


def value_at(root: object, path: Path) -> Any:
    """Return the value at a path."""
    for name in path:
        root = root[name] if isinstance(root, dict) else dict(children(root))[name]
    return root


def find_path(root: object, key: str) -> Path | None:
    """Return the path of a key, or of keys with dots between them; None if there is no such path.

    A key may itself contain dots. "" is the top.
    """
    return () if key == "" else _find(root, key.split("."), 0, set())


def _find(value: object, names: list[str], begin: int, failed: set[tuple[int, int]]) -> Path | None:
    """Return the path of the names from `begin` on. `failed` keeps anything from being tried twice."""
    if begin == len(names):
        return ()
    if (id(value), begin) in failed:
        return None
    by_text: dict[str, tuple[Any, object]] = {}
    for name, item in children(value):
        if isinstance(name, str) or (isinstance(name, int) and str(name) not in by_text):
            by_text[str(name)] = (name, item)
    for end in range(len(names), begin, -1):
        name, item = by_text.get(".".join(names[begin:end]), (None, None))
        if name is not None and (rest := _find(item, names, end, failed)) is not None:
            return (name, *rest)
    failed.add((id(value), begin))
    return None


# ---------------------------------------------------------------- where the weights are


def candidates(root: object) -> dict[Path, dict[Any, Any]]:
    """Return every dict of tensors down to MAX_DEPTH by its path. Optimizers are skipped."""
    found: dict[Path, dict[Any, Any]] = {}
    seen: set[int] = set()
    level: list[tuple[Path, Any]] = [((), root)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[Path, Any]] = []
        for path, value in level:
            if id(value) in seen or is_module(value):
                continue
            inner = entries(value)
            if id(inner) in seen or is_optimizer(inner):
                continue
            seen |= {id(value)} | ({id(value.state)} if isinstance(value, Foreign) else set())
            if is_state_dict(inner):
                found[path] = inner
            below += [
                ((*path, name), item)
                for name, item in children(value)
                if isinstance(name, (str, int)) and isinstance(item, (dict, list, tuple, Foreign))
            ]
        level = below
    return found


class _Node(NamedTuple):
    """A value on a walk, its key and the node above it. Paths of all values would take too much memory."""

    value: object
    parent: "_Node | None"
    name: Any

    def path(self) -> Path:
        names = []
        node = self
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        return tuple(reversed(names))


def other_weights(root: object, path: Path) -> list[Path]:
    """Return the paths of what may be weights of another part of the model than the state dict at `path`.

    These are whole modules, state dicts with other names or shapes, and matrices of floats anywhere.
    Optimizers are skipped.
    """
    at_path = value_at(root, path)
    chosen = entries(at_path)
    shapes = {name: _shape_of(item) for name, item in chosen.items() if isinstance(name, str)}
    found: list[Path] = []
    seen: set[int] = set()
    kept: list[object] = []  # keeps the ids in `seen` valid
    queue = deque([_Node(root, None, None)])
    while queue and len(found) < MAX_FOUND:
        node = queue.popleft()
        inner = entries(node.value)
        if id(node.value) in seen or id(inner) in seen or is_optimizer(inner):
            continue
        seen |= {id(node.value), id(inner)}
        kept.append(inner)
        if is_module(node.value):
            found.append(node.path())
            continue
        items = list(inner.items()) if isinstance(inner, dict) else list(enumerate(_items_of(inner)))
        if inner is chosen or node.value is at_path:
            items = list(unpack(chosen).items())
            loose = [name for name, item in items if not isinstance(name, str) and _is_matrix(item)]
            found += [(*path, name) for name in loose[:1]]
        elif _holds_weights(inner, items, shapes):
            found.append(node.path())
        queue += [
            _Node(item, node, name) for name, item in items if isinstance(item, (dict, list, tuple, Foreign))
        ]
    return found


def _items_of(value: object) -> Any:
    return value if isinstance(value, (list, tuple)) else ()


def _holds_weights(value: object, items: list[tuple[Any, object]], shapes: dict[str, Any]) -> bool:
    """Whether a dict or list itself holds parameters or matrices.

    A copy of the chosen state dict, with the same names and shapes, does not count: it is a moving average.
    """
    tensors = {name: _shape_of(item) for name, item in items if isinstance(item, TENSORS)}
    if isinstance(value, dict) and tensors.items() <= shapes.items():
        return False
    return any(
        (isinstance(name, str) and isinstance(item, TENSORS) and is_parameter(name)) or _is_matrix(item)
        for name, item in items
    )


def _shape_of(value: object) -> tuple[Any, ...] | None:
    match value:
        case TensorView():
            return value.size
        case np.ndarray(shape=shape):
            return tuple(shape)
    return None


def _is_matrix(value: object) -> bool:
    return (
        isinstance(value, TensorView)
        and len(value.size) >= 2
        and (value.dtype.startswith(("float", "bfloat")) or value.scale is not None)
    )
