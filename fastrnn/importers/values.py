"""What a pickle holds besides tensors: numbers, texts, lists, dicts, sets, dates and arrays, as plain values.

In the order of a file's way through here: `Name`, `Foreign` and other forms in which `pickle_reader` keeps
what it reads; `CALLS`, the functions with which pickles make plain values; and `Freezer`, which turns all of
it into values that nobody can change. Whatever is not plain becomes a `StandIn`, which says what it would
have been.

No function of `CALLS` makes anything larger than its arguments. Nothing that a file names is imported here.
"""

import datetime
import sys
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import brief, printable
from fastrnn.importers.state_dict import FrozenDict, FrozenList, StandIn
from fastrnn.importers.tensors import is_shape

# A value that is nested more deeply becomes a stand-in.
MAX_DEPTH = 64
MAX_KEY_BITS = 64  # of an integer that is hashed as a key: arbitrarily many larger ones share one hash


# ---------------------------------------------------------------- what pickle_reader keeps


class Name:
    """A class or function that a pickle names: text, which is never looked up."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = printable(text)


class Foreign:
    """What a pickle makes by calling a name that no table has: the record from which a `StandIn` is made."""

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: object = None
        self.items: list[Any] = []


class OddKey:
    """A key that must not be hashed, see `is_plain_key`. It is equal only to itself."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Set(list[Any]):
    """The items of a set, some of which may not be hashable."""


def is_plain_key(key: object) -> bool:
    """Whether a key may be hashed.

    A deeply nested key would overflow the C stack. Many large integers with the same hash take quadratic
    time.
    """
    if isinstance(key, int):
        return key.bit_length() <= MAX_KEY_BITS
    return isinstance(key, (str, float, bytes, type(None)))


# ---------------------------------------------------------------- NumPy's arrays and scalars


# The units of NumPy's dates.
_UNITS = frozenset(b"Y M W D h m s ms us ns ps fs as".split())


class PickledDtype:
    """A NumPy dtype that a pickle describes."""

    def __init__(self, code: object) -> None:
        self.code = code
        self.order = "="
        self.unit = ""

    def set_state(self, state: object) -> None:
        """Take the state that follows the code: the version, the byte order and, for dates, the unit."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"the state of a dtype, {brief(state)}")
        self.order = str(state[1])
        match state[8:]:
            case ((_, (bytes(unit), int(count), *_)), *_) if unit in _UNITS and 0 < count < 10**6:
                self.unit = f"[{count}{unit.decode()}]"

    def value(self) -> Any:
        """Return the dtype, or a Foreign if it is not one of numbers, texts or dates."""
        code = self.code
        if isinstance(code, str) and len(code) <= 10 and code[:1] in "biufcSUMm" and code[1:].isdecimal():
            try:
                return np.dtype(f"{'' if self.order == '|' else self.order}{code}{self.unit}")
            except TypeError:
                pass
        return Foreign("numpy.dtype", (brief(code),))


class PickledArray:
    """A NumPy array that a pickle describes. Its state follows it."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def set_state(self, state: object) -> None:
        """Take the state: (version, shape, dtype, whether in Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError(f"the state of an array, {brief(state)}")
        self.state = state

    def value(self) -> Any:
        """Return the array, read-only; a Foreign if it holds objects or its numbers do not fit."""
        if len(self.state) != 5:
            return Foreign("numpy.ndarray")
        _, shape, dtype, is_fortran, data = self.state
        return _array(data, dtype, shape, "F" if is_fortran is True else "C")


def _array(data: object, dtype: object, shape: object, order: Any) -> Any:
    dtype = dtype.value() if isinstance(dtype, PickledDtype) else dtype
    match data, dtype, shape:
        case bytes(), np.dtype(), tuple() if is_shape(shape) and dtype.itemsize > 0:
            if prod(shape) * dtype.itemsize == len(data) and is_shape((*shape, dtype.itemsize)):
                return np.ndarray(shape, dtype, data, order=order)
    return Foreign("numpy.ndarray", (shape, dtype))


def _reconstruct(*_: object) -> PickledArray:
    return PickledArray()


def _from_buffer(data: object, dtype: object, shape: object, order: object = "C", *_: object) -> Any:
    return _array(data, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype: object, data: object = b"", *_: object) -> Any:
    array: Array | Foreign = _array(data, dtype, (), "C")
    return Foreign("numpy.scalar", (brief(dtype),)) if isinstance(array, Foreign) else array[()]


def _dtype(code: object, *_: object) -> PickledDtype:
    return PickledDtype(code)


# ---------------------------------------------------------------- functions that make plain values

_DATES = (datetime.date, datetime.time, datetime.timedelta, datetime.timezone)
_RANGES = (slice, range)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Return the bytes of a text: protocol 2 writes bytes this way."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise ValueError(f"bytes as {brief(text)} in {brief(encoding)}")
    return text.encode(str(encoding))


def _bytes(data: object = b"", *_: object) -> bytes:
    if not isinstance(data, bytes):
        raise ValueError(f"bytes made of {brief(data)}")
    return data


def _list(items: Iterable[Any] = ()) -> list[Any]:
    return list(_checked(items))


def _set(items: Iterable[Any] = ()) -> Set:
    return Set(_checked(items))


def _tuple(items: Iterable[Any] = ()) -> tuple[Any, ...]:
    return tuple(_checked(items))


def _checked(items: object) -> Iterable[Any]:
    if not isinstance(items, (list, tuple)):
        raise ValueError(f"items of {brief(items)}")
    return items


def _dict(items: object = (), *_: object) -> dict[Any, Any]:
    """Return a dict of pairs, or a copy of a dict."""
    if isinstance(items, dict):
        return dict(items)
    result = {}
    for pair in _checked(items):
        key, value = pair
        if not is_plain_key(key):
            raise ValueError("a key that is not plain")
        result[key] = value
    return result


def _empty_dict(*_: object) -> dict[Any, Any]:
    return {}


def _deque(items: Iterable[Any] = (), *_: object) -> list[Any]:
    return _list(items)


def _number(kind: type) -> Callable[..., object]:
    """Return a maker of a type from numbers, but never from a text, which may be long."""

    def make(*values: object) -> object:
        if not all(type(value) in (int, float, bool) for value in values):
            raise ValueError(f"a {kind.__name__} of {brief(values)}")
        return kind(*values)

    return make


def _range(kind: type) -> Callable[..., object]:
    def make(*values: object) -> object:
        if not all(value is None or type(value) is int for value in values):
            raise ValueError(f"a {kind.__name__} of {brief(values)}")
        return kind(*values)

    return make


def _date(kind: type) -> Callable[..., object]:
    """Return a maker of a date class from the bytes, numbers and time zones in which it is pickled."""

    def make(*values: object) -> object:
        if len(values) > 8 or not all(
            type(value) in (int, float, bytes, datetime.timedelta, datetime.timezone) for value in values
        ):
            return Foreign(f"datetime.{kind.__name__}", values)
        return kind(*values)

    return make


def _is_decimal(value: object) -> bool:
    """Whether that is a decimal number. There is none as long as nobody has imported the module."""
    decimal = sys.modules.get("decimal")
    return decimal is not None and isinstance(value, decimal.Decimal)


def _decimal(text: object) -> object:
    if not isinstance(text, str) or len(text) > 100:
        raise ValueError(f"a decimal number of {brief(text)}")
    import decimal  # late: 1 ms that few files need

    return decimal.Decimal(text)


_BUILTINS: Mapping[str, Callable[..., object]] = {
    "set": _set,
    "frozenset": _set,
    "list": _list,
    "tuple": _tuple,
    "dict": _dict,
    "bytes": _bytes,
    "bytearray": _bytes,
    "complex": _number(complex),
    "int": _number(int),
    "float": _number(float),
    "bool": _number(bool),
    "slice": _range(slice),
    "range": _range(range),
    "xrange": _range(range),
}
CALLS: Mapping[str, Callable[..., object]] = {
    **{f"{module}.{name}": make for module in ("builtins", "__builtin__")
       for name, make in _BUILTINS.items()},
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _empty_dict,
    "collections.deque": _deque,
    "_codecs.encode": _encode,
    **{f"datetime.{kind.__name__}": _date(kind) for kind in (
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone)},
    "decimal.Decimal": _decimal,
    **{f"numpy.{core}.multiarray.{name}": make for core in ("core", "_core")
       for name, make in (("_reconstruct", _reconstruct), ("scalar", _scalar))},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "numpy.dtype": _dtype,
}  # fmt: skip


# ---------------------------------------------------------------- values that nobody can change


class Freezer:
    """Turns what a reader made into read-only values, all the way down.

    Each object is frozen once. So shared objects stay shared, and an object that holds itself is no endless
    loop.

    Parameters
    ----------
    tensor : callable
        Returns the read-only value for what the reader made of a tensor.
    """

    def __init__(self, tensor: Callable[[Any], object]) -> None:
        self.tensor = tensor
        self.done: dict[int, Any] = {}
        self.kept: list[object] = []  # keeps the ids in `done` valid

    def freeze(self, value: Any, depth: int = 0) -> Any:
        """Return the read-only form of a value that the reader of pickles made."""
        plain = (str, int, float, complex, bytes, np.generic, type(None), *_DATES, *_RANGES)
        if isinstance(value, plain) or _is_decimal(value):
            return value
        if id(value) in self.done:
            return self.done[id(value)]
        if depth > MAX_DEPTH - isinstance(value, Foreign):  # its arguments are one more level
            return StandIn(type(value).__name__, reason=f"it is nested more than {MAX_DEPTH} deep")
        self.kept.append(value)
        if isinstance(value, (Set, tuple)):
            result = self._freeze_items(value, depth)
        elif isinstance(value, list):
            result = self.done[id(value)] = FrozenList()
            list.extend(result, (self.freeze(item, depth + 1) for item in value))
        elif isinstance(value, dict):
            result = self.done[id(value)] = FrozenDict()
            for key, item in value.items():
                dict.__setitem__(result, self._key(key, depth), self.freeze(item, depth + 1))
        elif isinstance(value, Foreign):
            result = self.done[id(value)] = StandIn(value.name)
            for name in ("arguments", "state", "items"):  # they may hold the stand-in itself
                object.__setattr__(result, name, self.freeze(getattr(value, name), depth + 1))
        elif isinstance(value, StandIn):
            result = value
        elif isinstance(value, (PickledArray, PickledDtype)):
            result = self.freeze(value.value(), depth + 1)
        elif isinstance(value, Name):
            result = StandIn(value.text)
        elif isinstance(value, np.dtype):
            result = StandIn("numpy.dtype", (str(value),))
        elif isinstance(value, np.ndarray):
            result = value.view()
            result.flags.writeable = False
        else:
            result = self.tensor(value)
        self.done[id(value)] = result
        return result

    def _freeze_items(self, value: Any, depth: int) -> Any:
        items = tuple(self.freeze(item, depth + 1) for item in value)
        if not isinstance(value, Set):
            return items
        return frozenset(items) if all(map(is_plain_key, items)) else FrozenList(items)

    def _key(self, key: Any, depth: int) -> Any:
        """Return a hashable key. Dates and short tuples of plain keys stay; another odd key is a stand-in."""
        if not isinstance(key, OddKey):
            return key
        value = self.freeze(key.value, depth + 1)
        is_plain = (
            isinstance(value, _DATES)
            or _is_decimal(value)
            or (isinstance(value, tuple) and len(value) <= 8 and all(map(is_plain_key, value)))
        )
        return value if is_plain or isinstance(value, StandIn) else StandIn(type(value).__name__)
