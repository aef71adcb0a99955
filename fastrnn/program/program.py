"""`Program`: a graph of operators that is called like the module it was made of."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array, as_plain
from fastrnn.checks import Precision, check_path, check_threads, check_tolerance
from fastrnn.errors import brief, join, message
from fastrnn.graph import Graph, Input, ProgramSpec, Size, all_nodes, map_argument
from fastrnn.program.caller import Caller
from fastrnn.program.narrowing import check_narrow, precision_of, recast, storages_of
from fastrnn.program.passes import prepared
from fastrnn.program.planner import Toolbox
from fastrnn.program.plans import Plan, make_plan
from fastrnn.program.toolbox import make_toolbox
from fastrnn.saving.golden import Comparison, disagreement, warn_of_dropped
from fastrnn.saving.program_file import GoldenPair, SavedProgram, write_program
from fastrnn.structure import flatten, may_be_left_out, names_of, rebuild

if TYPE_CHECKING:
    from fastrnn.program.streaming.pool import ProgramPool
    from fastrnn.program.streaming.stream import ProgramStream

PLANS_KEPT = 16


class Program:
    """A graph of operators over named arrays.

    `fastrnn.export` makes one of any torch module, `fastrnn.with_heads` of layers. It is called as the module
    is, with NumPy arrays, and returns arrays nested as the module's results are.
    The first call at new sizes makes a plan, which is kept. Threads may share a program.

    Parameters
    ----------
    spec : ProgramSpec
        What it computes: that of another program is its ``spec``.
    precision : {"float32", "float64", "bfloat16", "int8"} or mapping of str to them, optional
        As in `LSTM.from_state_dict`. At "bfloat16" and "int8" the weights of products are narrow, and the
        tables of embeddings; depthwise convolutions stay float32. A mapping is for recurrent layers and
        cells. All else is float32 beside it. If not given, that of ``spec``.
    threads, backend
        As in `LSTM.from_state_dict`.

    Attributes
    ----------
    graph : Graph
        What it computes.
    inputs : tuple of Input
        The arrays that it takes: names, dtypes and shapes. A shape's entry is a number or the name of a size.
    precision : str or dict of str to str
        The type of its real numbers, "float32" or "float64". Of one with narrow weights, whose other numbers
        are float32, what these are stored as: "bfloat16" or "int8". Or the precision of each matrix of the
        recurrent layers, if only they have narrow weights. "mixed", if layers with several precisions make
        up the program.
    golden_inputs : tuple of tuple of ndarray
        The inputs of its self-test, at one or two sizes. `fastrnn.export` and files bring them. If there are
        none, `save` and `verify` make some.
    example : GoldenPair or None
        The arguments and results of torch's module in the file that the program was loaded from.

    Raises
    ------
    WeightError
        A weight that is to become int8 holds NaN or infinity.
    ValueError
        An operator is missing, or an option has a wrong value. Or narrow weights are used otherwise.

    Examples
    --------
    >>> program = fastrnn.export(module, (x,), dynamic=({0: "B", 1: "T"},))
    >>> program.save("model.safetensors", example=((x,), module(x)))
    >>> program = fastrnn.load("model.safetensors")
    >>> y = program(x.numpy())
    """

    def __init__(
        self,
        spec: ProgramSpec,
        *,
        precision: Precision | None = None,
        threads: int | None = None,
        backend: str = "auto",
    ) -> None:
        self.spec = spec
        self.threads = check_threads("Program", threads)
        self.backend = backend
        graph = spec.graph
        if precision is not None:
            graph = recast(graph, precision)
            # Nothing of the program keeps the wide weights.
            self.spec = spec = spec._replace(graph=graph)
        check_narrow(graph)
        self.graph = graph
        self.precision: Precision = precision_of(graph)
        hidden, optional = graph.hidden, graph.optional
        self.inputs: tuple[Input, ...] = tuple(form for form in graph.inputs if form.name not in hidden)
        self._hidden = [
            np.asarray(graph.constants[hidden[form.name]], order="C")
            for form in graph.inputs
            if form.name in hidden
        ]
        # The inputs that callers may leave out, by their numbers, and the parameters that hold no others.
        self._optional: dict[int, Array] = {
            number: graph.constants[optional[form.name]]
            for number, form in enumerate(self.inputs)
            if form.name in optional
        }
        parameters = zip(spec.parameters, spec.arguments["tuple"][0]["tuple"], strict=False)
        self._left_out = {name for name, part in parameters if may_be_left_out(part, self._optional)}
        self._planned = prepared(graph)
        self._tools: Toolbox = make_toolbox(backend, self.threads)
        for storage in storages_of(graph):
            self._tools.pick("float32", input=storage)
        self._largest = sorted(set(_largest_values(graph)))
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self.golden_inputs: tuple[tuple[Array, ...], ...] = ()
        self.example: GoldenPair | None = None
        # The precision is not that of the example's file, so that the example may not agree any more.
        self._is_recast = False
        self._caller = Caller(spec.arguments, spec.results, self.inputs, self._hidden)
        # How streams run it, by sizes, and which sizes may be time.
        self._sessions: OrderedDict[Any, Any] = OrderedDict()
        self._times: list[str] | None = None
        self._streamed: Program | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program.

        Parameters
        ----------
        args, kwargs
            What the module takes, with array-likes for tensors. States that have a first value may be None,
            or left out at the end.

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
        if kwargs:
            args = self._positional(args, kwargs)
        result = self._caller.call(args, kwargs)
        if result is not NotImplemented:
            return result
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
            plan = make_plan(self._planned, self._tools, shapes, largest)
            self._plans[key] = plan
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
            if not self._largest:
                self._caller.keep(plan.compiled for plan in reversed(list(self._plans.values())))
        return plan

    def stream(self, batch_size: int | None = None, time: str | None = None) -> ProgramStream:
        """Return a live sequence that the program runs over chunk by chunk: see `ProgramStream`.

        Parameters
        ----------
        batch_size : int, optional
            How many rows the arrays have. If not given, as many as in the first call.
        time : str, optional
            The name of the size that is time. If not given, it is the one along which operators look at more
            than one step.

        Raises
        ------
        ValueError
            An operator needs the whole sequence, or it is not known which size is time.
        """
        from fastrnn.program.streaming.stream import ProgramStream

        return ProgramStream(self._without_states(), batch_size, time)

    def pool(self, capacity: int = 256, time: str | None = None) -> ProgramPool:
        """Return room for many live sequences that are stepped as one batch: see `ProgramPool`.

        Parameters
        ----------
        capacity : int
            The number of streams that fit before the memory grows.
        time : str, optional
            As for `stream`.

        Raises
        ------
        ValueError
            An operator needs the whole sequence or mixes rows, or it is not known which size is time.
        """
        from fastrnn.program.streaming.pool import ProgramPool

        return ProgramPool(self._without_states(), capacity, time)

    def _without_states(self) -> Program:
        """The program that streams run. Of states that may be left out, it is the one without them."""
        if not self._optional or len(self._optional) < len(self.graph.states):
            return self
        if self._streamed is None:
            from fastrnn.program.streaming.first_states import from_first_states

            self._streamed = from_first_states(self)
        return self._streamed

    def _largest_of(self, arrays: Sequence[Array]) -> dict[str, int]:
        """The largest numbers of values whose numbers are sizes."""
        if not self._largest:
            return {}
        from fastrnn.program.evaluate import evaluate

        given = dict(zip((form.name for form in self.graph.inputs), arrays, strict=True))
        values = evaluate(self.graph, given, self._largest)
        return {name: int(value.max(initial=0)) for name, value in zip(self._largest, values, strict=True)}

    # ------------------------------------------------------------ files and tests

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the results, and then of the next states, as messages have them."""
        results = names_of(self.spec.results, "result")
        return (*results, *(f"the next {link.input}" for link in self.graph.states))

    def save(
        self, path: str | os.PathLike[str], example: Any = None, *, tolerance: float | None = None
    ) -> None:
        """Write the program to one safetensors file: its constants, its graph and a self-test.

        The self-test is seeded inputs at two sizes, with the outputs of the operators' definitions in NumPy,
        in float64. ``fastrnn verify`` runs it again. It shows that a machine computes what the graph says. An
        example shows that the graph is the torch module. Nothing is written unless the program passes the
        self-test, and the example if there is one. The file appears whole or not at all.

        Parameters
        ----------
        path : str or path
            The file to write. `fastrnn.load` reads it.
        example : (args, results), or a dict with "args", "results" and optionally "kwargs", optional
            Arguments, and the results of torch's module in ``eval()`` for them, as in `verify`. The file
            keeps them. If not given, it keeps the example that the program has already.
        tolerance : float, optional
            The largest absolute difference allowed from the example's results, as in `verify`. The file
            keeps it.

        Warns
        -----
        UserWarning
            The program was loaded at another precision than its file's, and its results there differ from the
            example of the file, which is not kept then.

        Raises
        ------
        ValueError
            The program's results differ from the example's. The message names those that do. Or ``tolerance``
            does not fit.
        RuntimeError
            The engine and the definitions disagree on this machine.
        TypeError
            ``example`` has none of these forms.
        OSError
            The file cannot be written.
        """
        from fastrnn.program.pairs import compare_pair, golden_pair, make_inputs

        path = check_path("save", path)
        if tolerance is not None:
            tolerance = check_tolerance("save", tolerance)
        kept = self.example if example is None else self._example("save", example, tolerance)
        if kept is not None:
            found = compare_pair(self, kept)
            if not found["passed"] and example is None and self._is_recast:
                warn_of_dropped(found, join(storages_of(self.graph) or [str(self.precision)]))
                kept = None
            elif not found["passed"]:
                raise disagreement(found, "results")
        golden = [golden_pair(self, inputs) for inputs in self.golden_inputs or make_inputs(self)]
        for pair in golden:
            test = compare_pair(self, pair)
            if not test["passed"]:
                expected = f"what the definitions give within {test['tolerance']:.3g}"
                got = f"one {test['largest_error']:.3g} away"
                raise RuntimeError(message("save", expected, got, test["hint"]))
        spec = self.spec._replace(graph=self.graph)
        write_program(path, SavedProgram(spec, tuple(golden), kept, self.precision), known_operators())

    def verify(
        self,
        args: Any = None,
        results: Any = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
        tolerance: float | None = None,
    ) -> Comparison:
        """Compare the program's results with those of torch's module.

        Without arguments, compare it with the operators' definitions in NumPy on the inputs of the self-test.

        Parameters
        ----------
        args : tuple or array-like, optional
            The positional arguments, as a call takes them. One array needs no tuple.
        results : optional
            What torch's module in ``eval()`` returned, nested as a call returns it.
        kwargs : mapping of str to object, optional
            The arguments by name.
        tolerance : float, optional
            The largest absolute difference allowed. If not given, it is 1e-5 of the largest value (1e-11 in
            float64) of each result, and more if the program amplifies rounding or has narrow weights.

        Returns
        -------
        dict
            As that of `Sequential.verify`: ``passed``, ``largest_error`` and ``tolerance`` of the result that
            is furthest away, ``values``, the number of values compared, and ``hint``, which names each result
            that differs.

        Raises
        ------
        ValueError
            Only one of args and results is given, or an argument or ``tolerance`` does not fit.
        TypeError
            The arguments or results are nested in another way.
        """
        from fastrnn.program.pairs import compare_pair, golden_pair, join_comparisons, make_inputs

        if args is None and results is None and kwargs is None:
            pairs = [golden_pair(self, inputs) for inputs in self.golden_inputs or make_inputs(self)]
            return join_comparisons([compare_pair(self, pair) for pair in pairs])
        example = {"args": () if args is None else args, "results": results, "kwargs": kwargs}
        return compare_pair(self, self._example("verify", example, tolerance))

    def _example(self, where: str, example: Any, tolerance: float | None) -> GoldenPair:
        """Check an example as a user gave it."""
        from fastrnn.program.pairs import allowed

        names = {"args", "results", "kwargs"}
        if isinstance(example, Mapping) and {"args", "results"} <= example.keys() <= names:
            args, results, kwargs = (example.get(name) for name in ("args", "results", "kwargs"))
        elif isinstance(example, (tuple, list)) and len(example) == 2:
            (args, results), kwargs = example, None
        else:
            raise TypeError(message(where, "example to be (args, results)", brief(example)))
        if results is None:
            raise ValueError(message(where, "arguments and results together", "no results"))
        args = tuple(args) if isinstance(args, (tuple, list)) else (args,)
        inputs = self._arrays(args, dict(kwargs or {}))
        leaves: list[Any] = []
        flatten(where, self.spec.results, results, "results", leaves)
        outputs = [
            _as_array(where, name, leaf) for name, leaf in zip(self.output_names, leaves, strict=False)
        ]
        if tolerance is None:
            return GoldenPair(tuple(inputs), tuple(outputs), allowed(self, inputs))
        most = check_tolerance(where, tolerance)
        return GoldenPair(tuple(inputs), tuple(outputs), (most,) * len(outputs))

    # ------------------------------------------------------------ arguments

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The positional arguments, with those that were given by name, which are taken out of kwargs.

        None stands for those that were left out.
        """
        for name in self.spec.parameters[len(args) :]:
            if name in kwargs:
                args = (*args, kwargs.pop(name))
            elif name in self._left_out:
                args = (*args, None)
            else:
                break
        return args

    def _arrays(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Array]:
        """The arrays of the arguments, checked and plain."""
        positional, named = self.spec.arguments["tuple"]
        names = self.spec.parameters
        given = args
        args = self._positional(args, kwargs)
        if len(args) != len(names) or kwargs.keys() != named["dict"].keys():
            expected = join([*names, *named["dict"]]) if names or named["dict"] else "no arguments"
            got = "1 argument" if len(given) == 1 else f"{len(given)} arguments"
            raise TypeError(message("Program", expected, f"{got} and {join(kwargs)}" if kwargs else got))
        leaves: list[Any] = []
        for name, structure, value in zip(names, positional["tuple"], args, strict=True):
            flatten("Program", structure, value, name, leaves, self._optional)
        for name, structure in named["dict"].items():
            flatten("Program", structure, kwargs[name], name, leaves, self._optional)
        sizes: dict[str, tuple[int, str]] = {}
        arrays = [
            None if leaf is None and number in self._optional else checked("Program", form, leaf, sizes)
            for number, (form, leaf) in enumerate(zip(self.inputs, leaves, strict=True))
        ]
        return [self._first(n, sizes) if array is None else array for n, array in enumerate(arrays)]

    def _first(self, number: int, sizes: Mapping[str, tuple[int, str]]) -> Array:
        """A state that was left out, as it begins."""
        form = self.inputs[number]
        missing = [size for size in form.shape if isinstance(size, str) and size not in sizes]
        if missing:
            raise ValueError(message("Program", f"an array that says what {missing[0]} is", "none"))
        shape = [sizes[size][0] if isinstance(size, str) else size for size in form.shape]
        array = np.empty(shape, form.dtype)
        array[...] = self._optional[number]
        return array

    def __repr__(self) -> str:
        forms = ", ".join(f"{form.name} {_shape(form)}" for form in self.inputs)
        precision = f", precision={self.precision!r}" if storages_of(self.graph) else ""
        return f"Program({forms}: {len(self.graph.nodes)} operators{precision})"

    def __reduce__(self) -> tuple[Any, ...]:
        spec = self.spec._replace(graph=self.graph)
        kept = self.golden_inputs, self.example, self._is_recast
        return _restore, (spec, self.threads, self.backend, *kept)

    def __copy__(self) -> Program:
        """Return the program itself, which never changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self


def _restore(
    spec: ProgramSpec,
    threads: int | None,
    backend: str,
    golden_inputs: tuple[tuple[Array, ...], ...],
    example: GoldenPair | None,
    is_recast: bool = False,
) -> Program:
    program = Program(spec, threads=threads, backend=backend)
    program.golden_inputs, program.example, program._is_recast = golden_inputs, example, is_recast
    return program


def known_operators() -> set[str]:
    """The names of all operators that programs have."""
    from fastrnn.program.lowering import LOWERINGS
    from fastrnn.reference.operators import OPERATORS

    return {*LOWERINGS, *OPERATORS}


def _shape(form: Input) -> str:
    return f"({', '.join(map(str, form.shape))}{',' if len(form.shape) == 1 else ''})"


def checked(where: str, form: Input, value: Any, sizes: dict[str, tuple[int, str]]) -> Array:
    """An argument as a plain array of the input's type, with the sizes that its shape gives."""
    array = _as_array(where, form.name, value)
    if array.dtype != form.dtype:
        if not np.can_cast(array.dtype, form.dtype, "same_kind") and not _is_safe(array, form.dtype):
            raise TypeError(message(where, f"{form.name} to hold {form.dtype}", f"{array.dtype}"))
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
                        where,
                        f"{form.name} of shape {_shape(form)} with {wanted} = {first}, as in {name}",
                        f"{array.shape}",
                    )
                )
    if not is_same:
        raise ValueError(message(where, f"{form.name} of shape {_shape(form)}", f"{array.shape}"))
    return as_plain(array)


def _as_array(where: str, name: str, value: Any) -> Array:
    """An array-like or a torch tensor as an array of numbers."""
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(message(where, f"{name} to be an array", brief(value))) from error
    if array.dtype.kind not in "biufc" or isinstance(value, np.ma.MaskedArray):
        raise TypeError(message(where, f"{name} to be a plain array of numbers", brief(value)))
    return array


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

    for node in all_nodes(graph.nodes):
        if node.body is not None:
            look(node.body.count)
        for argument in node.arguments.values():
            map_argument(argument, look)
    yield from found
