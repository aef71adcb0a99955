"""Pickles, read without importing or calling anything that they name.

A pickle is a program for a stack machine. `read_pickle` runs that program over a closed set of opcodes. Where
the program asks for a class or function it gets a `Name`, which is only text. A call of a Name is looked up
in two tables: `values.CALLS`, which makes plain values, and the caller's own table, which for torch's files
has the few functions that rebuild a tensor. Any other call makes a `Foreign`, which records what was asked
for.

So a file that holds a pandas table beside its weights can still be read. A file that asks for ``os.system``
is refused by name.
"""

import os
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any

from fastrnn.errors import FormatError, brief, brief_error, message
from fastrnn.importers.dangerous_names import is_dangerous
from fastrnn.importers.tensors import Unread
from fastrnn.importers.values import (
    CALLS,
    Foreign,
    Name,
    OddKey,
    PickledArray,
    PickledDtype,
    Set,
    is_plain_key,
)

# The work that a pickle may cause: its opcodes, the items in the arguments of its calls, the length of names.
# A state dict of 70,000 tensors needs this much. It bounds memory to a few hundred MB and time to seconds.
MAX_WORK = 2_000_000
CHEAP = 0.5  # the work of pushing a number or a text, or of using the memo
MAX_NAME = 1000  # characters
NAME_SHARE = 10  # characters of a name that count as much as an opcode
# Characters and bytes in the arguments of calls: at most TEXT_RATIO times the size of the pickle, plus
# FREE_TEXT.
TEXT_RATIO = 4
FREE_TEXT = 2**20
MAX_BITS = 2**15  # of an integer

_MARK = object()  # what the opcode MARK pushes
_CONTAINERS = (list, tuple, dict)


def read_pickle(
    file: IO[bytes],
    where: str,
    functions: Mapping[str, Callable[..., object]],
    persistent: Callable[[Any], object],
) -> Any:
    """Read one pickle from a binary file, and leave the file positioned after its STOP.

    Parameters
    ----------
    file : binary file
        Needs read and readline. A read beyond the end must return what is left.
    where : str
        The file's name, for messages.
    functions : mapping of str to callable
        What the pickle may call besides `values.CALLS`: "module.name" to a function of the call's arguments.
    persistent : callable
        Makes the object of a persistent id.

    Returns
    -------
    object
        What the pickle holds, made of plain values, `Foreign`s and whatever `functions` and `persistent`
        make.

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
            # pickletools decodes the escapes of old protocols, and warns about unknown ones.
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
        got = f"one that is damaged ({brief_error(error)})"
        raise FormatError(message(where, "a whole pickle", got)) from error
    raise FormatError(message(where, "a whole pickle", "one without an end"))


class _Machine:
    """The stack machine. It has a method for each opcode, which the table `_OPCODES` finds.

    A ``do_<opcode>`` method enters the table by itself. Each takes the opcode's argument.
    """

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
        """Count work; raise FormatError once it is too much."""
        self.work += work
        if self.work > MAX_WORK:
            raise FormatError(message(self.where, f"a pickle of at most {MAX_WORK} operations", "more"))

    def run(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        method, work = _OPCODES.get(name, (None, 1))
        if method is None:
            raise FormatError(message(self.where, "opcodes that torch.save writes", f"the opcode {name}"))
        self.charge(work)
        method(self, argument)

    # -- the stack

    def pop(self) -> Any:
        """Take the value on top of the stack."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def pop_to_mark(self) -> list[Any]:
        """Take the values above the topmost mark, and the mark."""
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
            raise ValueError(f"an integer of {value.bit_length()} bits")
        # Nothing here changes a bytearray, and bytes need no copies.
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
        if is_dangerous(module, name):
            got = f"one that asks for {brief(text)}"
            hint = "Unpickling it would run code. It was refused, and nothing in it ran."
            raise FormatError(message(self.where, "a file of weights", got, hint))
        self.stack.append(Name(text))

    def call(self, function: object, arguments: tuple[Any, ...]) -> object:
        if not isinstance(function, Name):
            # What is called is itself the result of a call.
            return Foreign(getattr(function, "name", type(function).__name__), arguments)
        # A function may pass its arguments on to another one, so what they hold counts too.
        inner = [a for a in arguments if isinstance(a, _CONTAINERS)]
        self.charge(len(arguments) + sum(map(len, inner)))
        self.charge(sum(len(b) for a in inner for b in a if isinstance(b, _CONTAINERS)))
        self.text_room -= sum(len(a) for a in arguments if isinstance(a, (str, bytes)))
        if self.text_room < 0:
            raise FormatError(
                message(self.where, "texts that are reused a few times", "some that are reused very often")
            )
        if function.text in self.functions:
            return self.functions[function.text](*arguments)
        try:
            return CALLS[function.text](*arguments)
        except (KeyError, ValueError, TypeError, ArithmeticError):  # an unknown name, or unsuitable arguments
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
        # On anything else it sets attributes, such as the _metadata of a state dict, which nothing needs.

    def do_binpersid(self, _: object) -> None:
        found = self.persistent(self.pop())
        if isinstance(found, Unread):
            self.charge(len(found.reason) // NAME_SHARE)
        self.stack.append(found)


def _extend(target: object, values: list[Any]) -> None:
    """Append items to a list, or record them with a Foreign."""
    if isinstance(target, Foreign):
        target = target.items
    if not isinstance(target, list):
        raise ValueError(f"items for a {type(target).__name__}")
    target.extend(values)


def _fill(target: object, values: list[Any]) -> object:
    """Set the items (key, value, key, value, ...) of a dict, or record them with a Foreign."""
    if len(values) % 2:
        raise ValueError("a key without a value")
    if isinstance(target, dict):
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[key if is_plain_key(key) else OddKey(key)] = value
    elif isinstance(target, Foreign):
        target.items.extend(zip(values[::2], values[1::2], strict=True))
    else:
        raise ValueError(f"items for a {type(target).__name__}")
    return target


def _push(value: object) -> Callable[[_Machine, object], None]:
    return lambda machine, _: machine.stack.append(value)


def _named(names: str, method: Callable[[_Machine, Any], None], work: float) -> dict[str, Any]:
    return {name: (method, work) for name in names.split()}


# Each opcode's method and its work.
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
