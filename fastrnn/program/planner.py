"""From a graph and the sizes of its inputs to a plan: steps in order, and where every value lies.

Every node is lowered (`lowering`): to a view of what is there, to a chain of element-wise operations that
waits for its use (`fusion`), or to a step that computes it. Then memory is shared between values that do not
live at the same time (`memory`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn.errors import brief, brief_error, message
from fastrnn.graph import Graph, Node, Size, Value
from fastrnn.narrow import NarrowWeight
from fastrnn.program.evaluate import UNFIT
from fastrnn.program.fusion import Chain
from fastrnn.program.views import Kind, Padded, Patches, StepNumber, Storage, View, dense_strides

# What a file may ask for at most; memory says what there is.
MOST_BYTES = 2**48
MOST_AXES = 32


class Operand(NamedTuple):
    """Where a step finds an array."""

    storage: Storage
    offset: int
    advance: int


class PlannedStep(NamedTuple):
    """A step with its arrays: inputs, then outputs.

    Attributes
    ----------
    step : object
        A `Step` of the compiled modules.
    inputs, outputs : list of Operand
    in_place : tuple of int
        The inputs in whose place the first output may lie.
    updated : tuple of int
        The inputs that it changes, such as states.
    """

    step: Any
    inputs: list[Operand]
    outputs: list[Operand]
    in_place: tuple[int, ...] = ()
    updated: tuple[int, ...] = ()

    @property
    def written(self) -> list[Storage]:
        """The storages that it writes into."""
        return [place.storage for place in (*self.outputs, *(self.inputs[i] for i in self.updated))]


class PlannedLoop(NamedTuple):
    """Steps that are repeated."""

    steps: list[PlannedStep]
    repetitions: int


class Toolbox(NamedTuple):
    """What steps are made of, and what they share between plans.

    Attributes
    ----------
    kernels : mapping of str to capsule
        The kernels of arrays by arithmetic.
    rows : mapping of str to capsule
        The tables with functions of rows by arithmetic.
    pick : function of a dtype, and of storages by the names of matrices
        The backend that packs and runs matrices of a dtype. Their storages are it, if no others are named.
    packed : dict
        What was packed already.
    references : mapping of str to function
    """

    kernels: Mapping[str, Any]
    rows: Mapping[str, Any]
    pick: Callable[..., Any]
    packed: dict[Any, Any]
    references: Mapping[str, Callable[..., Any]]
    threads: int


class Planner:
    """Makes the plan of a graph at given sizes.

    Attributes
    ----------
    values : dict of str to View or Chain
    items : list of PlannedStep and PlannedLoop
    patches : dict of Storage to Patches
        The arrays (B, channels * taps, count) that patches were copied to.
    padded : dict of Storage to Padded
        The arrays that were copied to get zeros around them.
    """

    def __init__(
        self,
        graph: Graph,
        tools: Toolbox,
        shapes: Sequence[tuple[int, ...]],
        strides: Sequence[tuple[int, ...]],
        largest: Mapping[str, int],
    ) -> None:
        self.graph, self.tools, self._largest = graph, tools, largest
        self.values: dict[str, Any] = {}
        self.items: list[Any] = []
        self.patches: dict[Storage, Patches] = {}
        self.padded: dict[Storage, Padded] = {}
        self._steps: list[PlannedStep] = self.items
        self._repeats = 1
        self._uses: dict[str, int] = {}
        self.node: Node | None = None
        for node in graph.nodes:
            self._count(node)
        for name in (*graph.outputs, *(link.output for link in graph.states)):
            self._uses[name] = self._uses.get(name, 0) + 2  # has to be there in the end
        for name, array in graph.constants.items():
            self.values[name] = self.constant(array)
        for index, (form, shape, own) in enumerate(zip(graph.inputs, shapes, strides, strict=True)):
            size = math.prod(shape) * np.dtype(form.dtype).itemsize
            storage = Storage(Kind.INPUT, size, index)
            self.values[form.name] = View(storage, 0, form.dtype, tuple(shape), tuple(own))

    def _count(self, node: Node) -> None:
        for name in node.values():
            self._uses[name] = self._uses.get(name, 0) + 1
        if node.body is not None:
            for inner in node.body.nodes:
                for name in inner.values():
                    self._uses[name] = self._uses.get(name, 0) + 1
            for name in (*node.body.collected, *node.body.last, *(link[2] for link in node.body.carried)):
                self._uses[name] = self._uses.get(name, 0) + 2

    # ------------------------------------------------------------ nodes

    def run(self) -> list[View]:
        """Lower all nodes, and return where the outputs and then the next states lie."""
        for node in self.graph.nodes:
            self.lower(node)
        wanted = [*self.graph.outputs, *(link.output for link in self.graph.states)]
        claimed: dict[int, View] = {}
        results = []
        for index, name in enumerate(wanted):
            value = self.values.get(name)
            if not isinstance(value, (View, Chain)):
                got = "none" if value is None else brief(value)
                raise ValueError(message("program", f"a node that gives {name}", got))
            view = self.view(value)
            self._check_inside(view)
            if view.storage.kind is Kind.WORK and view.is_whole and id(view.storage) not in claimed:
                view.storage.kind, view.storage.index = Kind.OUTPUT, index
                claimed[id(view.storage)] = view
            else:
                view = self.copied(view, Storage(Kind.OUTPUT, view.size * view.itemsize, index))
            results.append(view)
        self.items = _without_unread(self.items)
        return results

    def lower(self, node: Node) -> None:
        """Add what a node computes.

        Raises
        ------
        ValueError
            Its arguments do not fit, in whatever way: it may come from a file that anyone wrote.
        """
        self.node = node
        try:
            self._lower(node)
        except UNFIT as error:
            if isinstance(error, ValueError) and ": expected " in str(error):
                raise
            raise self.error("arguments that fit together", brief_error(error)) from error

    def _lower(self, node: Node) -> None:
        from fastrnn.program.lowering import LOWERINGS, fallback
        from fastrnn.program.lowering.loops import lower_loop

        if node.body is not None:
            lower_loop(self, node)
            return
        arguments = {name: self.resolve(argument) for name, argument in node.arguments.items()}
        results: Any = NotImplemented
        lowering = LOWERINGS.get(node.operator)
        if lowering is not None and not self._is_constant(arguments):
            results = lowering(self, **arguments)
        if results is NotImplemented:
            results = fallback(self, node.operator, arguments)
        results = results if type(results) is list else [results]
        for name, result in zip(node.outputs, results, strict=False):
            if name is None or result is None:
                continue
            if isinstance(result, Chain) and self._uses.get(name, 0) > 1:
                result = self.view(result)
            self.values[name] = result

    def _is_constant(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the results do not depend on what a call is given."""
        found = list(_arrays(arguments.values()))
        return all(isinstance(array, View) and array.is_constant for array in found) and not any(
            isinstance(argument, StepNumber) for argument in arguments.values()
        )

    def resolve(self, argument: Any) -> Any:
        """An argument with views for values and numbers for sizes."""
        if isinstance(argument, Value):
            return self.values[argument.name]
        if isinstance(argument, Size):
            first = argument.evaluate(lambda size: self._read(size, 0))
            second = argument.evaluate(lambda size: self._read(size, 1))
            return first if first == second else StepNumber(first, second - first)
        if isinstance(argument, tuple):
            return tuple(self.resolve(part) for part in argument)
        return argument

    def _read(self, size: Size, step: int) -> int:
        if size.operator == "dim":
            return int(self.values[size.left].shape[size.right])
        return int(self._largest[size.left]) if size.operator == "largest" else step

    @property
    def operator(self) -> str:
        """The name of the operator that is lowered now."""
        return self.node.operator if self.node is not None else ""

    def error(self, expected: str, got: str) -> ValueError:
        """The error for arguments that an operator does not take."""
        node = self.node
        return ValueError(
            message(
                self.operator or "program", expected, got, f"At {node.where}" if node and node.where else ""
            )
        )

    # ------------------------------------------------------------ values

    def constant(self, array: Any) -> View:
        if isinstance(array, NarrowWeight):
            size = array.size * np.dtype("float32").itemsize
            storage = Storage(Kind.CONSTANT, size, array=array)
            return View(storage, 0, "float32", array.shape, dense_strides(array.shape, 4))
        array = np.asarray(array, order="C")
        return View(
            Storage(Kind.CONSTANT, array.nbytes, array=array), 0, array.dtype.name, array.shape, array.strides
        )

    def new(self, dtype: str, shape: Sequence[int], order: Sequence[int] | None = None) -> View:
        """A value of its own. order: its axes from the outermost to the innermost in memory."""
        itemsize = np.dtype(dtype).itemsize
        shape = tuple(shape)
        size = math.prod(shape) * itemsize
        if any(type(n) is not int or n < 0 for n in shape) or size >= MOST_BYTES or len(shape) > MOST_AXES:
            raise self.error("results of a shape that fits in memory", f"{shape}"[:80])
        return View(Storage(Kind.WORK, size), 0, dtype, shape, dense_strides(shape, itemsize, order))

    def view(self, value: Any) -> View:
        """Where a value lies; a chain is computed first."""
        return value.computed(self) if isinstance(value, Chain) else value

    def contiguous(self, value: Any, dtype: str | None = None) -> View:
        """A value whose elements lie in the order of its axes, as a copy if they do not."""
        view = self.view(value)
        if view.is_contiguous and dtype in (None, view.dtype):
            return view
        if view.is_constant:
            return self.constant(view.array().astype(dtype or view.dtype))
        return self.copied(view, None, dtype)

    def copied(self, view: View, storage: Storage | None = None, dtype: str | None = None) -> View:
        """A copy without gaps, in the order of its axes."""
        target = self.new(dtype or view.dtype, view.shape)
        if storage is not None:
            target = target.replace(storage=storage)
        self.copy(view, target)
        return target

    def copy(self, source: View, target: View) -> None:
        """Copy a value to where another one lies."""
        from fastrnn.program.fusion import copy_step

        if source.dtype == target.dtype and source.dtype.startswith("complex"):
            source, target = source.as_real(), target.as_real()
        self.add(copy_step(self, source, target), [source], [target])

    def add(
        self,
        step: Any,
        inputs: Sequence[View],
        outputs: Sequence[View],
        in_place: Sequence[int] = (),
        is_needed: bool = False,
        updated: Sequence[int] = (),
    ) -> None:
        """Add a step. in_place: the inputs at whose place the first output may lie. is_needed: even if an
        output is empty. updated: the inputs that it changes."""
        if not is_needed and any(view.size == 0 for view in outputs):
            return
        for view in (*inputs, *outputs):
            self._check_inside(view)
        self._steps.append(
            PlannedStep(
                step,
                [operand(view) for view in inputs],
                [operand(view) for view in outputs],
                tuple(in_place),
                tuple(updated),
            )
        )

    def check(self, step: Any, view: View) -> None:
        """Add a step that looks at a value and writes nothing."""
        self._check_inside(view)
        self._steps.append(PlannedStep(step, [operand(view)], []))

    def _check_inside(self, view: View) -> None:
        """Refuse a view that leaves its storage: no graph, wherever it comes from, reads other memory."""
        if not all(isinstance(n, (int, np.integer)) for n in (view.offset, *view.shape, *view.strides)):
            raise self.error("whole numbers for places in an array", f"{view.offset}, {view.shape}"[:80])
        if 0 in view.shape or not self._repeats:  # the steps of a loop of no steps never run
            return
        reaches = [(n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True)]
        reaches.append((self._repeats - 1) * view.advance)
        low = view.offset + sum(min(reach, 0) for reach in reaches)
        high = view.offset + sum(max(reach, 0) for reach in reaches) + view.itemsize
        if low < 0 or high > view.storage.bytes or min(view.shape, default=1) < 0:
            raise self.error("parts that lie inside an array", f"shape {view.shape}, which does not")

    @property
    def is_in_loop(self) -> bool:
        """Whether steps that are added now are repeated."""
        return self._steps is not self.items

    def loop(self, count: int, body: Callable[[], None]) -> None:
        """Add steps that are repeated."""
        if self.is_in_loop:
            raise self.error("loops that are not nested", "a loop in a loop")
        outer, self._steps, self._repeats = self._steps, [], count
        body()
        steps, self._steps, self._repeats = self._steps, outer, 1
        self.items.append(PlannedLoop(steps, count))


def _without_unread(items: Sequence[Any]) -> list[Any]:
    """The items but for steps whose outputs nothing reads."""
    read: set[Storage] = set()
    kept: list[Any] = []
    for item in reversed(items):
        steps = item.steps if isinstance(item, PlannedLoop) else [item]
        written = [storage for step in steps for storage in step.written]
        is_read = any(storage.kind is not Kind.WORK or storage in read for storage in written)
        if is_read or not written or isinstance(item, PlannedLoop):
            read.update(place.storage for step in steps for place in step.inputs)
            kept.append(item)
    return kept[::-1]


def operand(view: View) -> Operand:
    return Operand(view.storage, view.offset, view.advance)


def _arrays(arguments: Any) -> Any:
    for argument in arguments:
        if isinstance(argument, (View, Chain)):
            yield argument
        elif type(argument) is tuple:
            yield from _arrays(argument)
