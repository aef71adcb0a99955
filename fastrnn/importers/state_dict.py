"""What `load_state_dict` returns: arrays by torch's names, and what else the file holds.

No file is read here, except through the makers of `LeftOut`, which the caller passes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import brief, message
from fastrnn.importers.parameters import unread_error
from fastrnn.importers.parametrizations import is_parameter
from fastrnn.narrow import NarrowWeight

Key = TypeVar("Key")
Item = TypeVar("Item")


class LeftOut(Mapping[str, Any]):
    """Read-only values of a file by their paths in it. Each is made when it is first asked for.

    Until then the file must stay as it is. If it was changed or removed meanwhile, asking for a value is an
    OSError. A copy or a pickle holds all values.

    Parameters
    ----------
    values : mapping of str to object
        Those that are made already.
    makers : mapping of str to callable, optional
        A function for each of the others, which makes the value.
    """

    def __init__(
        self, values: Mapping[str, Any], makers: Mapping[str, Callable[[], Any]] | None = None
    ) -> None:
        self._values = dict(values)
        self._makers = dict(makers or {})

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._makers[name]()
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._makers
        yield from (name for name in self._values if name not in self._makers)

    def __len__(self) -> int:
        return len(self._makers.keys() | self._values.keys())

    def __or__(self, other: Mapping[str, Any]) -> "LeftOut":
        if isinstance(other, LeftOut):
            return LeftOut(self._values | other._values, self._makers | other._makers)
        return LeftOut(self._values | dict(other), self._makers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(brief, self))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return LeftOut, (dict(self),)


class StandIn:
    """Stands for an object that would have needed a call of the file's own code, or for a tensor not read.

    The call was not made.

    Attributes
    ----------
    name : str
        What would have been called, such as "argparse.Namespace"; "torch.Tensor" for a tensor.
    arguments : tuple
        The arguments of the call.
    state : object
        What the object would have been filled with, often a dict of its attributes; None if nothing.
    items : list
        What would have been added to it if it is a kind of list or dict: the items, or pairs of key and
        value.
    reason : str
        Why a tensor was not read; "" for anything else.
    """

    __match_args__ = ("name", "arguments", "state", "items", "reason")
    name: str
    arguments: tuple[Any, ...]
    state: Any
    items: Any
    reason: str

    def __init__(
        self, name: str, arguments: tuple[Any, ...] = (), state: Any = None, items: Any = (), reason: str = ""
    ) -> None:
        vars(self).update(name=name, arguments=arguments, state=state, items=items, reason=reason)

    def __getattr__(self, attribute: str) -> NoReturn:
        where = f"the stand-in for {self.name}" if attribute != "name" else "StandIn"
        hint = "The attributes that the object would have had are in `state`."
        raise AttributeError(message(where, "one of its own attributes", brief(attribute), hint))

    def __setattr__(self, attribute: str, value: object = None) -> NoReturn:
        raise AttributeError(message(f"the stand-in for {self.name}", "read-only use", "a change"))

    __delattr__ = __setattr__

    def __repr__(self) -> str:
        return f"<stand-in for {self.name}{f': {self.reason}' if self.reason else ''}>"


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    hint = "copy.deepcopy(value) makes one that can be changed."
    raise TypeError(message("left_out", "read-only use of a value", "a change", hint))


class FrozenList(list[Item]):
    """A list that cannot be changed."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class FrozenDict(dict[Key, Item]):
    """A dict that cannot be changed. ``|`` makes a new one."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class StateDict(dict[str, Array]):
    """A dict of ndarrays by torch's names. Its attributes say what else the file holds.

    Asking for a tensor that is in the file but was not read, by ``[name]`` or ``get``, is a WeightError that
    says why.

    Attributes
    ----------
    file_format : str
        The format of the file: "torch zip", "torch legacy", "safetensors" or "npz", with the number
        of files if there are several.
    key : str
        The path of the state dict in the file; "" at the top.
    left_out : mapping of str to object
        Everything else by its path in the file. Plain values (numbers, texts, lists, dicts, sets, dates,
        NumPy arrays, tensors as arrays) are nested as in the file and read-only. Anything else is a
        `StandIn`. Each is read when it is first asked for.
    unread : dict of str to str
        The tensors that were not read, and why. ``left_out`` has a `StandIn` for each.
    folded : dict of str to str
        The parameters that training kept in parts, and the form, such as "weight norm".
    others : tuple of str
        The paths of other weights in the file: state dicts with other names or shapes, whole modules, and
        dicts and lists that hold a matrix.
    metadata : dict of str to str
        The metadata of a safetensors file.
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
        self.left_out = left_out if isinstance(left_out, LeftOut) else LeftOut(left_out or {})
        self.unread = FrozenDict(unread or {})
        self.folded = FrozenDict(folded or {})
        self.others = others
        self.metadata = metadata or {}

    def widened(self) -> "StateDict":
        """Return it with every narrow weight of a saved model as a float32 array: itself if there is none."""
        if not any(isinstance(value, NarrowWeight) for value in self.values()):
            return self
        arrays = {name: np.asarray(value) for name, value in self.items()}
        return StateDict(
            arrays, self.file_format, self.key, self.left_out, self.metadata,
            unread=self.unread, folded=self.folded, others=self.others,
        )  # fmt: skip

    def __missing__(self, name: object) -> NoReturn:
        if isinstance(name, str) and name in self.unread:
            raise unread_error("state_dict", name, self.unread[name])
        raise KeyError(name)

    def get(self, name: Any, default: Any = None) -> Any:
        """Return the array of a name, or the default if the file has no tensor of that name."""
        return self[name] if name in self or name in self.unread else default


def describe(value: object) -> str:
    """Describe a plain value or a stand-in in a few words."""
    if isinstance(value, StandIn):
        return f"{value.name} (not {'read: ' + value.reason if value.reason else 'made'})"
    if isinstance(value, np.ndarray):
        return f"array {value.shape} of {value.dtype}"
    if isinstance(value, (dict, list, tuple, frozenset)):
        kind = type(value).__name__.removeprefix("Frozen").lower().replace("frozenset", "set")
        if isinstance(value, dict) and any(isinstance(name, str) and is_parameter(name) for name in value):
            kind = "another state dict"
        return f"{kind} of {len(value)}"
    if isinstance(value, np.generic):
        return brief(value.item())
    if isinstance(value, (complex, slice, range)) or type(value).__module__ in ("datetime", "decimal"):
        return str(value)
    return brief(value)
