"""What a module computes, written down while it runs once: a trace.

A `Recorder` is a mode of torch's dispatcher in inference mode, so it sees the operators that a module calls
as its author wrote them (a convolution, a whole LSTM), with real tensors. Operators that change a tensor in
place are written down as operators that return a new one; `aliases` keeps track of who shares memory.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from fastrnn.importers.torch_capture.aliases import Aliases, View
from fastrnn.importers.torch_capture.python_calls import PythonCalls
from fastrnn.importers.torch_capture.structure import tensors_of


class Ref(NamedTuple):
    """A value of a trace: the number of its record, and which of its results; or (-1, i) for an input."""

    record: int
    result: int = 0


class Constant(NamedTuple):
    """A tensor that was there before the module ran."""

    name: str


class Record(NamedTuple):
    """One call of an operator."""

    operator: str
    arguments: dict[str, Any]
    results: list[tuple[tuple[int, ...], str]]  # shape and dtype of each
    where: str


class Read(NamedTuple):
    """Numbers that Python read from a tensor: one, or all of them."""

    value: Any
    numbers: Any
    where: str


class Trace(NamedTuple):
    """What one run of a module did.

    Attributes
    ----------
    records : list of Record
    outputs : list
        The value of each tensor that the module returned, in order.
    constants : dict of str to tensor
    reads : list of Read
    changed : dict of str to value
        The constants that the module changed, with their last values.
    is_read_whole : bool
        Whether numbers left tensors in a list or array and were made tensors again.
    """

    records: list[Record]
    outputs: list[Any]
    constants: dict[str, torch.Tensor]
    reads: list[Read]
    changed: dict[str, Any]
    is_read_whole: bool


# Whatever these do, they do not change numbers that are inferred.
SAME = {"detach", "alias", "lift_fresh", "lift", "_to_cpu", "resolve_conj", "resolve_neg"}
READS = {"item", "_local_scalar_dense", "is_nonzero", "equal", "allclose"}
PACKING = {"_pack_padded_sequence", "_pad_packed_sequence"}
# Operators that draw numbers.
RANDOM = {
    "rand",
    "randn",
    "randint",
    "rand_like",
    "randn_like",
    "randint_like",
    "randperm",
    "bernoulli",
    "multinomial",
    "normal",
    "uniform",
    "exponential",
    "geometric",
    "poisson",
    "log_normal",
    "cauchy",
    "random",
    "native_dropout",
}
# What operators compute with. Their other tensors are masks and places.
OPERANDS = {"self", "other", "input", "exponent"}
DEFAULT = "float32"  # what whole numbers become beside real ones
TORCH = os.path.dirname(torch.__file__)


class Names(TorchDispatchMode):  # type: ignore[misc]  # as in python_calls
    """Notes the names of all operators that run in its context."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As `Recorder` says."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func._schema.name.removeprefix("aten::").removesuffix("_"))
        return func(*args, **(kwargs or {}))


class Recorder(TorchDispatchMode):  # type: ignore[misc]  # as in python_calls
    """Writes down every operator that runs in its context."""

    def __init__(
        self,
        names: dict[int, str],
        named: dict[str, torch.Tensor],
        inputs: list[torch.Tensor],
        operators: Collection[str],
    ) -> None:
        """names: the parameters and buffers by the id of the tensor; named: the reverse.

        operators: those that a program has. Of any other that torch makes of others, those are written down.
        """
        super().__init__()
        self.known = {*operators, *SAME, *READS, *PACKING}
        self.names, self.constants = dict(names), dict(named)
        self.records: list[Record] = []
        self.reads: list[Read] = []
        self.aliases = Aliases(self._emit)
        self._made_of_known: dict[Any, bool] = {}
        self.kept: list[Any] = []  # tensors that were seen, so that no other gets their id
        self.returned_reads: list[Read] = []
        self._left: dict[int, tuple[Any, torch.Tensor, Read]] = {}  # numbers, by their id
        for index, tensor in enumerate(inputs):
            self.aliases.add(tensor, Ref(-1, index))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch wraps the method below for its compiler otherwise, whose import takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        name = schema.name.removeprefix("aten::")
        arguments = _by_name(schema, args, kwargs or {})
        if name in RANDOM and not _is_idle(name, arguments):
            raise Refused(f"random numbers of {name}", where())
        if name.removesuffix("_") not in self.known and self._is_made_of_known(func, args, kwargs or {}):
            with self:
                return func.decompose(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        at = where()
        results = result if isinstance(result, (tuple, list)) else (result,)
        if name in READS:
            read = next(value for value in arguments.values() if isinstance(value, torch.Tensor))
            self.reads.append(Read(self.value_of(read), result, at))
            return result
        written = {a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        tensors = [t for t in results if isinstance(t, torch.Tensor)]
        if name in SAME and len(tensors) == 1:
            source = next(value for value in arguments.values() if isinstance(value, torch.Tensor))
            self.value_of(source)
            self.aliases.share(tensors[0], source)
            return result
        plain = {key: self._plain(value) for key, value in arguments.items()}
        if written:
            self._record_written(name, arguments, plain, written, tensors, at)
            return result
        if any(result is tensor for tensor in arguments.values()):
            # What gives its argument at some sizes gives a new tensor at others.
            result = torch.ops.aten.alias.default(result)
            tensors = [result]
        if _makes_reals(arguments, tensors):
            plain |= {key: self._as_reals(arguments[key]) for key in OPERANDS & arguments.keys()}
        self.records.append(Record(name, plain, [_form(t) for t in tensors], at))
        number = len(self.records) - 1
        sources = [value for value in _tensors(list(arguments.values()))]
        for index, tensor in enumerate(tensors):
            self.kept.append(tensor)
            owner = next((s for s in sources if self.aliases.is_shared(s, tensor)), None)
            if owner is None:
                self.aliases.add(tensor, Ref(number, index))
            else:
                shape, dtype = _form(tensor)
                view = View(name, plain, index, tuple(owner.shape), shape, dtype)
                self.aliases.view(tensor, owner, Ref(number, index), view)
        return result

    def _is_made_of_known(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether torch makes an operator of others, all of which a program has."""
        if func not in self._made_of_known:
            is_known = func._can_decompose() and not any(
                a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments
            )
            if is_known:
                names = Names()
                with names:
                    func.decompose(*args, **kwargs)
                is_known = names.seen <= self.known
            self._made_of_known[func] = is_known
        return self._made_of_known[func]

    def _record_written(
        self,
        name: str,
        arguments: dict[str, Any],
        plain: dict[str, Any],
        written: set[str],
        results: Any,
        at: str,
    ) -> None:
        if len(written) > 1:
            raise Refused(f"{name} with several out=", at)
        (target_name,) = written
        target = arguments[target_name]
        if target_name == "out":
            del plain["out"]
        operator = name.removesuffix("_")
        self.records.append(Record(operator, plain, [_form(target)], at))
        self.aliases.write(target, Ref(len(self.records) - 1))
        for tensor in results:
            if tensor is not target:
                self.aliases.share(tensor, target)

    def _as_reals(self, operand: Any) -> Any:
        """An operand of an operator that makes its whole numbers real ones, which is written down as a step.

        So the type of the real numbers is in the graph, where another precision changes it.
        """
        if not isinstance(operand, torch.Tensor):
            return self._plain(operand)
        arguments = {"self": self.value_of(operand), "dtype": DEFAULT}
        return self._emit("_to_copy", arguments, tuple(operand.shape), DEFAULT)

    def _emit(self, operator: str, arguments: dict[str, Any], shape: tuple[int, ...], dtype: str) -> Ref:
        """Write down an operator that did not run, for `aliases`."""
        self.records.append(Record(operator, arguments, [(shape, dtype)], where()))
        return Ref(len(self.records) - 1)

    def read(self, tensor: torch.Tensor, numbers: Any) -> None:
        """Numbers left a tensor."""
        read = Read(self.value_of(tensor), numbers, where())
        self.reads.append(read)
        self._left[id(numbers)] = numbers, tensor, read

    def returned(self, numbers: Any) -> torch.Tensor | None:
        """The tensor from which numbers were read, if these are some. The read is forgotten."""
        if id(numbers) not in self._left:
            return None
        _, tensor, read = self._left[id(numbers)]
        self.reads = [other for other in self.reads if other is not read]
        self.returned_reads.append(read)
        return tensor

    def value_of(self, tensor: torch.Tensor) -> Any:
        """The present value of a tensor."""
        if not self.aliases.is_known(tensor):
            name = self.names.get(id(tensor))
            if name is not None:
                self.aliases.add(tensor, Constant(name))
            elif (number := _only_number(tensor)) is not None:
                # Made of a number, which may depend on sizes.
                shape, dtype = _form(tensor)
                made = {"size": shape, "fill_value": number, "dtype": dtype}
                self.aliases.add(tensor, self._emit("full", made, shape, dtype))
            else:
                name = f"constant{len(self.constants)}"
                with _disable_current_modes():
                    self.constants[name] = tensor.clone()
                self.names[id(tensor)] = name
                self.aliases.add(tensor, Constant(name))
        self.kept.append(tensor)
        return self.aliases.value(tensor)

    def _plain(self, value: Any) -> Any:
        """An argument of an operator as a trace keeps it."""
        if isinstance(value, torch.Tensor):
            return self.value_of(value)
        if isinstance(value, (tuple, list)):
            return tuple(self._plain(part) for part in value)
        if isinstance(value, torch.dtype):
            return str(value).removeprefix("torch.")
        if isinstance(value, (torch.device, torch.layout, torch.memory_format, torch.Generator)):
            return None
        return value


class Refused(Exception):
    """The module does what no program can."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where)
        self.what, self.where = what, where


def _by_name(schema: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """All arguments that differ from their defaults, by name, in the schema's order."""
    given = {}
    for index, argument in enumerate(schema.arguments):
        if index < len(args):
            given[argument.name] = args[index]
        elif argument.name in kwargs:
            given[argument.name] = kwargs[argument.name]
    return given


def _only_number(tensor: torch.Tensor) -> Any:
    """The number that all elements of a tensor are, or None."""
    with _disable_current_modes():
        if not tensor.numel():
            return None
        first = tensor.reshape(-1)[0]
        return first.item() if bool((tensor == first).all()) else None


def _is_idle(name: str, arguments: dict[str, Any]) -> bool:
    return name == "native_dropout" and not arguments.get("train")


def _makes_reals(arguments: dict[str, Any], results: list[torch.Tensor]) -> bool:
    """Whether an operator gives real numbers for whole ones, without a type that is named."""
    operands = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    return (
        bool(operands)
        and arguments.get("dtype") is None
        and any(_form(result)[1] == DEFAULT for result in results)
        and not any(operand.is_floating_point() or operand.is_complex() for operand in operands)
    )


def _tensors(values: Any) -> Any:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _form(tensor: torch.Tensor) -> tuple[tuple[int, ...], str]:
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def where() -> str:
    """The line outside torch and this package that runs now: "model.py:12: x = self.conv(x)"."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith((TORCH, os.path.dirname(__file__))):
            line = traceback.FrameSummary(path, frame.f_lineno, frame.f_code.co_name).line
            return f"{os.path.basename(path)}:{frame.f_lineno}: {line}"
        frame = frame.f_back
    return ""


def record(
    module: Any,
    args: Any,
    kwargs: Any,
    inputs: list[torch.Tensor],
    state: Any,
    operators: Collection[str],
) -> tuple[Trace, Any]:
    """Run a module once and return what it did, and what it returned.

    inputs: the tensors of its arguments. state: the module's `State`. operators: those that a program has.
    """
    named, names = {}, {}
    for name, tensor in [*module.named_parameters(remove_duplicate=False), *state.tensors().items()]:
        if id(tensor) not in names:
            names[id(tensor)] = name
            named[name] = tensor
    recorder = Recorder(names, named, inputs, operators)
    with torch.inference_mode(), recorder, PythonCalls(recorder):
        result = module(*args, **kwargs)
    outputs = [recorder.value_of(tensor) for tensor in tensors_of(result)]
    changed = {}
    for name, tensor in state.tensors().items():
        if name not in named:  # a cache, which each run makes anew
            continue
        value = recorder.value_of(tensor)
        if value != Constant(name):
            changed[name] = value
    for index, tensor in enumerate(inputs):
        if recorder.aliases.is_written(tensor):
            changed[f"input{index}"] = recorder.aliases.value(tensor)
    reads, whole = recorder.reads, bool(recorder.returned_reads)
    return Trace(recorder.records, outputs, recorder.constants, reads, changed, whole), result
