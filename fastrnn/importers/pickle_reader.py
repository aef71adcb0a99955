"""Pickles, read without running anything.

A pickle is a program for a stack machine. `read_pickle` runs that program over a closed set
of opcodes, and where the program asks for a class or function it gets a `Name`: text, never
imported. Calling a Name looks it up in a table (plain values, `values.CALLS`; and for torch's files
the few functions that rebuild a tensor); any other call makes a `Foreign` that remembers what
was asked. So a file can hold a whole pandas table beside its weights and still be read, and a
file that asks for ``os.system`` is refused by name.
"""

import os
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any

from fastrnn.errors import FormatError, brief, message
from fastrnn.importers.hostile import is_hostile
from fastrnn.importers.tensors import Unread
from fastrnn.importers.values import CALLS, Foreign, Name, Odd, PickledArray, PickledDtype, Set, is_plain_key

# The work that a pickle may ask for: opcodes, items in the arguments of its calls, and what its names weigh.
# A state dict of 70,000 tensors needs as much; memory is bounded to some hundred MB, time to a few seconds.
MAX_WORK = 2_000_000
CHEAP = 0.5  # what a number, a text or a look into the memo weighs
MAX_NAME = 1000
NAME_SHARE = 10  # characters of a name that weigh as much as an opcode
# Characters and bytes that calls are given: as often as the pickle has bytes, and so many more.
TEXT_RATIO = 4
FREE_TEXT = 2**20
MAX_BITS = 2**15  # of a whole number


class _Mark:
    pass


_MARK = _Mark()


def read_pickle(
    file: IO[bytes],
    where: str,
    functions: Mapping[str, Callable[..., object]],
    persistent: Callable[[Any], object],
) -> Any:
    """Read one pickle from a binary file, and leave the file's position after its STOP.

    Parameters
    ----------
    file : binary file
        With read and readline; a read beyond its end must return what there is.
    where : str
        The file's name, for messages.
    functions : mapping of str to callable
        What may be called: "module.name" to a function of the call's arguments.
    persistent : callable
        From a persistent id to its object.

    Raises
    ------
    FormatError
        The pickle is damaged or hostile.
    """
    begin = file.tell()
    machine = _Machine(where, functions, persistent, file.seek(0, os.SEEK_END) - begin)
    file.seek(begin)
    try:
        with warnings.catch_warnings():
            # pickletools decodes escapes of old protocols, and warns of those that it does not know.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(file):
                name = opcode.name
                if name == "STOP":
                    return machine.pop()
                machine.run(name, argument)
    except FormatError:
        raise
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
        ArithmeticError,
        LookupError,
        EOFError,
    ) as error:
        got = f"one that is damaged ({type(error).__name__}: {str(error)[:200]})"
        raise FormatError(message(where, "a whole pickle", got)) from error
    raise FormatError(message(where, "a whole pickle", "one without an end"))


class _Machine:
    """The stack machine: a method for each opcode, in the table `_OPCODES`."""

    def __init__(
        self,
        where: str,
        functions: Mapping[str, Callable[..., object]],
        persistent: Callable[[Any], object],
        size: int,
    ) -> None:
        self.where = where
        self.text_room = FREE_TEXT + TEXT_RATIO * size
        self.functions = functions
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.work = 0.0

    def charge(self, work: float) -> None:
        self.work += work
        if self.work > MAX_WORK:
            raise FormatError(message(self.where, f"a pickle of at most {MAX_WORK} operations", "more"))

    def run(self, name: str, argument: Any) -> None:
        method, work = _OPCODES.get(name, (None, 1))
        if method is None:
            raise FormatError(message(self.where, "the opcodes of a torch file", f"the opcode {name}"))
        self.charge(work)
        method(self, argument)

    # -- the stack

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def pop_to_mark(self) -> list[Any]:
        """The values above the topmost mark, which goes too."""
        stack = self.stack
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark on the stack")
        values = stack[place + 1 :]
        del stack[place:]
        return values

    def do_mark(self, _: object) -> None:
        self.stack.append(_MARK)

    def do_pop(self, _: object) -> None:
        self.stack.pop()

    def do_pop_mark(self, _: object) -> None:
        self.pop_to_mark()

    def do_dup(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def ignore(self, _: object) -> None:
        pass

    def push_literal(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise ValueError(f"a whole number of {value.bit_length()} bits")
        # A bytearray is nobody's to change here, and bytes need no copies.
        self.stack.append(bytes(value) if isinstance(value, bytearray) else value)

    # -- the memo

    def get(self, place: Any) -> None:
        self.stack.append(self.memo[int(place)])

    def put(self, place: Any) -> None:
        self.memo[int(place)] = self.stack[-1]

    def memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    # -- containers

    def do_empty_list(self, _: object) -> None:
        self.stack.append([])

    def do_list(self, _: object) -> None:
        self.stack.append(self.pop_to_mark())

    def do_empty_set(self, _: object) -> None:
        self.stack.append(Set())

    def do_frozenset(self, _: object) -> None:
        self.stack.append(Set(self.pop_to_mark()))

    def do_append(self, _: object) -> None:
        value = self.pop()
        _extend(self.stack[-1], [value])

    def do_appends(self, _: object) -> None:
        values = self.pop_to_mark()
        _extend(self.stack[-1], values)

    do_additems = do_appends

    def do_empty_dict(self, _: object) -> None:
        self.stack.append({})

    def do_dict(self, _: object) -> None:
        values = self.pop_to_mark()
        self.stack.append(_fill({}, values))

    def do_setitem(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        _fill(self.stack[-1], [key, value])

    def do_setitems(self, _: object) -> None:
        values = self.pop_to_mark()
        _fill(self.stack[-1], values)

    def do_tuple(self, _: object) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def do_tuple1(self, _: object) -> None:
        self.stack.append((self.pop(),))

    def do_tuple2(self, _: object) -> None:
        last, first = self.pop(), self.pop()
        self.stack.append((first, last))

    def do_tuple3(self, _: object) -> None:
        last, middle, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, middle, last))

    # -- names and calls

    def do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_name(module, name)

    def do_stack_global(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is not text")
        self.push_name(module, name)

    def push_name(self, module: str, name: str) -> None:
        if len(module) + len(name) > MAX_NAME:
            raise ValueError(f"a name of {len(module) + len(name)} characters")
        text = f"{module}.{name}"
        self.charge(len(text) // NAME_SHARE)
        if is_hostile(module, name):
            got = f"one that asks for {brief(text)}"
            hint = "It would run code when unpickled, so it was refused; nothing of it ran."
            raise FormatError(message(self.where, "a file of weights", got, hint))
        self.stack.append(Name(text))

    def call(self, function: object, arguments: tuple[Any, ...]) -> object:
        if not isinstance(function, Name):
            # A call on something that was itself the result of a call.
            return Foreign(getattr(function, "name", type(function).__name__), arguments)
        # A function may pass its arguments on to another one: what these hold counts too.
        inner = [a for a in arguments if isinstance(a, _CONTAINERS)]
        self.charge(len(arguments) + sum(map(len, inner)))
        self.charge(sum(len(b) for a in inner for b in a if isinstance(b, _CONTAINERS)))
        self.text_room -= sum(len(a) for a in arguments if isinstance(a, (str, bytes)))
        if self.text_room < 0:
            raise FormatError(message(self.where, "texts that are used a few times", "some used very often"))
        if function.text in self.functions:
            return self.functions[function.text](*arguments)
        try:
            return CALLS[function.text](*arguments)
        except (KeyError, ValueError, TypeError, ArithmeticError):  # unknown, or given what it does not take
            return Foreign(function.text, arguments)

    def do_reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise ValueError("a call without a tuple of arguments")
        self.stack.append(self.call(function, arguments))

    do_newobj = do_reduce

    def do_newobj_ex(self, _: object) -> None:
        _, arguments, function = self.pop(), self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise ValueError("a call without a tuple of arguments")
        self.stack.append(self.call(function, arguments))

    def do_inst(self, argument: str) -> None:
        self.pop_to_mark()
        self.do_global(argument)
        self.stack.append(self.call(self.pop(), ()))

    def do_obj(self, _: object) -> None:
        function, *arguments = self.pop_to_mark()
        self.stack.append(self.call(function, tuple(arguments)))

    def do_build(self, _: object) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Foreign):
            target.state = state
        elif isinstance(target, (PickledArray, PickledDtype)):
            target.set_state(state)
        # Else it sets attributes, such as the _metadata of a state dict: of no use here.

    def do_binpersid(self, _: object) -> None:
        found = self.persistent(self.pop())
        if isinstance(found, Unread):
            self.charge(len(found.reason) // NAME_SHARE)
        self.stack.append(found)


def _extend(target: object, values: list[Any]) -> None:
    if isinstance(target, Foreign):
        target = target.items
    if not isinstance(target, list):
        raise ValueError(f"items for a {type(target).__name__}")
    target.extend(values)


def _fill(target: object, values: list[Any]) -> object:
    """Set the items (key, value, key, value, ...) of a dict."""
    if len(values) % 2:
        raise ValueError("a key without a value")
    if isinstance(target, dict):
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[key if is_plain_key(key) else Odd(key)] = value
    elif isinstance(target, Foreign):
        target.items.extend(zip(values[::2], values[1::2], strict=True))
    else:
        raise ValueError(f"items for a {type(target).__name__}")
    return target


def _push(value: object) -> Callable[[_Machine, object], None]:
    return lambda machine, _: machine.stack.append(value)


def _named(names: str, method: Callable[[_Machine, Any], None], work: float) -> dict[str, Any]:
    return {name: (method, work) for name in names.split()}


_CONTAINERS = (list, tuple, dict)
# Each opcode's method, and the work that it is.
_OPCODES: dict[str, tuple[Callable[[_Machine, Any], None], float]] = {
    **{
        name.removeprefix("do_").upper(): (method, 1)
        for name, method in vars(_Machine).items()
        if name.startswith("do_")
    },
    "NONE": (_push(None), 1),
    "NEWTRUE": (_push(True), 1),
    "NEWFALSE": (_push(False), 1),
    "EMPTY_TUPLE": (_push(()), 1),
    **_named("PROTO FRAME", _Machine.ignore, 1),
    **_named("GET BINGET LONG_BINGET", _Machine.get, CHEAP),
    **_named("PUT BINPUT LONG_BINPUT", _Machine.put, CHEAP),
    **_named(
        "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
        "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8",
        _Machine.push_literal,
        CHEAP,
    ),
    "MEMOIZE": (_Machine.memoize, CHEAP),
}
