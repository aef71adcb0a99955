"""`Program`: a graph of operators that is called like the module it was made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array, as_plain
from fastrnn.checks import check_threads
from fastrnn.errors import brief, join, message
from fastrnn.graph import Graph, Input, ProgramSpec, Size, map_argument
from fastrnn.program.passes import at_precision, prepared
from fastrnn.program.planner import Toolbox
from fastrnn.program.plans import Plan, make_plan
from fastrnn.program.toolbox import make_toolbox
from fastrnn.structure import flatten, rebuild

PLANS_KEPT = 16


class Program:
    """A graph of operators over named arrays. `fastrnn.export` makes one of any torch module.

    It is called as the module is, with NumPy arrays, and returns arrays nested as the module's results are.
    The first call at new sizes makes a plan, which is kept. Threads may share a program.

    Attributes
    ----------
    graph : Graph
        What it computes.
    inputs : tuple of Input
        The arrays that it takes: names, dtypes and shapes. A shape's entry is a number or the name of a size.
    precision : str
        The type of its real numbers, "float32" or "float64".

    Raises
    ------
    ValueError
        An operator is missing.
    """

    def __init__(
        self,
        spec: ProgramSpec,
        *,
        precision: str | None = None,
        threads: int | None = None,
        backend: str = "auto",
    ) -> None:
        self.spec = spec
        self.threads = check_threads("Program", threads)
        self.backend = backend
        graph = spec.graph
        if precision is not None:
            graph = at_precision(graph, precision)
        self.graph = graph
        self.precision = _precision(graph)
        hidden = {link.input for link in graph.states if link.initial is not None}
        self.inputs: tuple[Input, ...] = tuple(form for form in graph.inputs if form.name not in hidden)
        self._hidden = [
            np.ascontiguousarray(graph.constants[link.initial])
            for form in graph.inputs
            for link in graph.states
            if link.input == form.name and link.initial is not None
        ]
        self._planned = prepared(graph)
        self._tools: Toolbox = make_toolbox(backend, self.threads)
        self._largest = sorted(set(_largest_values(graph)))
        self._plans: OrderedDict[Any, Plan] = OrderedDict()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program.

        Parameters
        ----------
        args, kwargs
            What the module takes, with array-likes for tensors.

        Returns
        -------
        object
            Arrays, nested as the module's results are.

        Raises
        ------
        TypeError
            The arguments are nested in another way, or an array is of another type.
        ValueError
            The shape of an array does not fit.
        """
        arrays = self._arrays(args, kwargs)
        outputs = self.run([*arrays, *self._hidden])
        return rebuild(self.spec.results, outputs[: len(self.graph.outputs)])

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run plain arrays, one for each input of the graph. Return its outputs, then its next states."""
        return self.plan(arrays).run(arrays)

    def plan(self, arrays: Sequence[Array]) -> Plan:
        """Return the plan for arrays of these sizes."""
        largest = self._largest_of(arrays)
        key = (*(array.shape for array in arrays), *largest.values())
        plan = self._plans.get(key)
        if plan is None:
            shapes = [array.shape for array in arrays]
            strides = [array.strides for array in arrays]
            plan = make_plan(self._planned, self._tools, shapes, strides, largest)
            self._plans[key] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan

    def _largest_of(self, arrays: Sequence[Array]) -> dict[str, int]:
        """The largest numbers of values whose numbers are sizes."""
        if not self._largest:
            return {}
        from fastrnn.program.evaluate import evaluate

        given = dict(zip((form.name for form in self.graph.inputs), arrays, strict=True))
        values = evaluate(self.graph, given, self._largest)
        return {name: int(value.max(initial=0)) for name, value in zip(self._largest, values, strict=True)}

    # ------------------------------------------------------------ arguments

    def _arrays(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Array]:
        """The arrays of the arguments, checked and plain."""
        positional, named = self.spec.arguments["tuple"]
        names = self.spec.parameters
        kwargs = dict(kwargs)
        args = (*args, *(kwargs.pop(name) for name in names[len(args) :] if name in kwargs))
        if len(args) != len(names) or kwargs.keys() != named["dict"].keys():
            expected = join([*names, *named["dict"]]) if names or named["dict"] else "no arguments"
            raise TypeError(
                message("Program", expected, f"{len(args)} and {join(kwargs) if kwargs else 'no more'}")
            )
        leaves: list[Any] = []
        for name, structure, value in zip(names, positional["tuple"], args, strict=True):
            flatten("Program", structure, value, name, leaves)
        for name, structure in named["dict"].items():
            flatten("Program", structure, kwargs[name], name, leaves)
        sizes: dict[str, tuple[int, str]] = {}
        return [_checked(form, leaf, sizes) for form, leaf in zip(self.inputs, leaves, strict=True)]

    def __repr__(self) -> str:
        forms = ", ".join(f"{form.name} {_shape(form)}" for form in self.inputs)
        return f"Program({forms}: {len(self.graph.nodes)} operators)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.spec._replace(graph=self.graph), self.threads, self.backend)


def _restore(spec: ProgramSpec, threads: int | None, backend: str) -> Program:
    return Program(spec, threads=threads, backend=backend)


def _precision(graph: Graph) -> str:
    dtypes = {form.dtype for form in graph.inputs} | {array.dtype.name for array in graph.constants.values()}
    return "float64" if "float64" in dtypes and "float32" not in dtypes else "float32"


def _shape(form: Input) -> str:
    return f"({', '.join(map(str, form.shape))}{',' if len(form.shape) == 1 else ''})"


def _checked(form: Input, value: Any, sizes: dict[str, tuple[int, str]]) -> Array:
    """An argument as a plain array of the input's type, with the sizes that its shape gives."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(message("Program", f"{form.name} to be an array", brief(value))) from error
    if array.dtype != form.dtype:
        if not np.can_cast(array.dtype, form.dtype, "same_kind") and not _is_safe(array, form.dtype):
            raise TypeError(message("Program", f"{form.name} to hold {form.dtype}", f"{array.dtype}"))
        array = array.astype(form.dtype)
    is_same = array.ndim == len(form.shape)
    if is_same:
        for size, wanted in zip(array.shape, form.shape, strict=True):
            if isinstance(wanted, int):
                is_same = is_same and size == wanted
            elif sizes.setdefault(wanted, (size, form.name))[0] != size:
                first, name = sizes[wanted]
                raise ValueError(
                    message(
                        "Program",
                        f"{form.name} of shape {_shape(form)} with {wanted} = {first}, as in {name}",
                        f"{array.shape}",
                    )
                )
    if not is_same:
        raise ValueError(message("Program", f"{form.name} of shape {_shape(form)}", f"{array.shape}"))
    return as_plain(array)


def _is_safe(array: Array, dtype: str) -> bool:
    """Whether whole numbers, as a list of them gives, are taken for a type of real numbers."""
    return array.dtype.kind in "bui" and np.dtype(dtype).kind in "fc"


def _largest_values(graph: Graph) -> Iterator[str]:
    found: list[str] = []

    def look(part: Any) -> Any:
        if isinstance(part, Size):
            stack: list[Any] = [part]
            while stack:
                size = stack.pop()
                if isinstance(size, Size):
                    if size.operator == "largest":
                        found.append(size.left)
                    elif size.operator != "dim":
                        stack += [size.left, size.right]
        return part

    for node in graph.nodes:
        if node.body is not None:
            look(node.body.count)
        for inner in (node, *(node.body.nodes if node.body is not None else ())):
            for argument in inner.arguments.values():
                map_argument(argument, look)
    yield from found
