"""A torch module as a program: run at several sizes, compared, written as one graph."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from fastrnn.errors import brief, message
from fastrnn.graph import Graph, Input, Node, ProgramSpec, StateLink, live
from fastrnn.importers.torch_capture.build import Built
from fastrnn.importers.torch_capture.examples import (
    Axes,
    all_resized,
    find_axes,
    find_followers,
    runs_at,
    size_candidates,
    with_followers,
)
from fastrnn.importers.torch_capture.optional import TooFew, with_optional
from fastrnn.importers.torch_capture.packed import without_packing
from fastrnn.importers.torch_capture.reads import check_reads
from fastrnn.importers.torch_capture.recorder import Refused, Trace, record
from fastrnn.importers.torch_capture.state import State
from fastrnn.importers.torch_capture.structure import axes_of, describe, tensors_of, with_tensors
from fastrnn.structure import names_of

RUNS = (6, 12)  # traces at different sizes: these many, and if they do not tell enough, these many
PROOFS = 2  # runs at further sizes, which show that the graph holds there
LEFT_OUT = 2  # traces that may be unlike the others: they are proofs then


class Proof(NamedTuple):
    """Inputs, and what the module returned for them: arrays in order."""

    sizes: dict[str, int]
    inputs: list[Any]
    outputs: list[Any]


class Captured(NamedTuple):
    """A module as a program, and runs of the module to compare it with."""

    spec: ProgramSpec
    proofs: list[Proof]


class _Fixed(ValueError):
    """A module runs at no other size of some axes."""

    def __init__(self, module: str, names: list[str]) -> None:
        hint = f"{module} runs at no other size that was tried. Leave it out of dynamic."
        super().__init__(message("export", "sizes that may change", ", ".join(names), hint))
        self.names = names


class _Run(NamedTuple):
    """One traced run."""

    trace: Trace
    shapes: list[tuple[int, ...]]
    proof: Proof


def capture(
    module: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    operators: Collection[str],
    dynamic: Any = None,
    state: Any = (),
    runs: int = RUNS[0],
) -> Captured:
    """Return the program of a module. The parameters and errors are those of `fastrnn.export`.

    operators: the names of those that a program has. runs: how many traces it is made of.
    """
    try:
        return _Capture(module, args, kwargs, operators, runs).run(dynamic, state)
    except TooFew:
        return _Capture(module, args, kwargs, operators, RUNS[1]).run(dynamic, state)


class _Capture:
    def __init__(
        self,
        module: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        operators: Collection[str],
        wanted: int,
    ) -> None:
        _check_module(module)
        self.operators = operators
        self.module, self.given, self.wanted = module, (args, kwargs), wanted
        self.name = type(module).__name__
        if any(part.training for part in module.modules()):
            hint = "Call its eval() first: dropout and batch norm compute something else in training."
            raise ValueError(message("export", f"{self.name} in eval()", "a module in training mode", hint))
        self.tensors: list[torch.Tensor] = []
        self.arguments = describe("export", (args, kwargs), self.tensors)
        self.parameters = _parameters(module, len(args))
        positional, named = self.arguments["tuple"]
        self.names = [
            name
            for parameter, part in zip(self.parameters, positional["tuple"], strict=True)
            for name in names_of(part, parameter)
        ]
        self.names += [name for key, part in named["dict"].items() for name in names_of(part, key)]
        self.state = State(module)
        self.results: Any = None

    def run(self, dynamic: Any, state: Any) -> Captured:
        with self.state:
            self.state.prime(lambda: self._outputs(self.tensors))
            taken = {name for name, _ in self.module.named_parameters()} | self.state.tensors().keys()
            self.names = [f"{name}.input" if name in taken else name for name in self.names]
            try:
                if dynamic is None:
                    axes, runs, proofs = self._found_runs()
                else:
                    axes = self._named_axes(dynamic)
                    runs, proofs = self._all_runs(axes, self._base_sizes(axes))
                check_reads([run.trace for run in runs], self.tensors)
                return self._captured(runs, proofs, axes, state)
            except _Fixed as fixed:
                raise ValueError(str(fixed)) from None
            except Refused as refused:
                if isinstance(refused, TooFew) and self.wanted < RUNS[1]:
                    raise
                hint = f"At {refused.where}" if refused.where else ""
                what = f"{self.name} to do what a program can"
                raise ValueError(message("export", what, refused.what, hint)) from None

    # ------------------------------------------------------------ runs

    def _call(self, tensors: Sequence[torch.Tensor]) -> tuple[Any, Any]:
        """The arguments with other tensors."""
        args, kwargs = with_tensors(self.given, iter(tensors))
        return args, kwargs

    def _outputs(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        args, kwargs = self._call([t.clone() for t in tensors])
        with torch.inference_mode():
            return [t.clone() for t in tensors_of(self.module(*args, **kwargs))]

    def _traced(self, sizes: dict[str, int], tensors: Sequence[torch.Tensor]) -> _Run:
        own = [t.clone() for t in tensors]
        args, kwargs = self._call(own)
        with self.state:
            plain = self.state.plain()
            trace, result = record(self.module, args, kwargs, own, self.state, self.operators)
            self._check_plain(plain, self.state.plain())
            proof = Proof(sizes, [_array(t) for t in tensors], [_array(t) for t in tensors_of(result)])
        if self.results is None:
            self.results = describe("export", result, [])
        return _Run(trace, [tuple(t.shape) for t in tensors], proof)

    def _check_plain(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Raise ValueError if a call changed what is no tensor and may change the next call."""
        changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        if changed:
            hint = "Keep what changes from call to call in tensors of one shape."
            raise ValueError(
                message("export", f"{self.name} to keep {', '.join(sorted(changed))}", "a change", hint)
            )

    def _runs(self, tensors: Sequence[torch.Tensor]) -> bool:
        try:
            with self.state:
                self._outputs(tensors)
        except Exception:  # whatever a module raises for a size that it does not take
            return False
        return True

    def _found_runs(self) -> tuple[Axes, list[_Run], list[Proof]]:
        """Axes that may change, which are found by trying, and the runs at their sizes."""
        axes = find_axes(self.tensors, self._runs)
        while True:
            try:
                return axes, *self._all_runs(axes, self._base_sizes(axes))
            except _Fixed as fixed:
                # It ran at another size by chance. Features come last.
                axes = [{axis: name for axis, name in own.items() if name != fixed.names[-1]} for own in axes]

    def _all_runs(self, axes: Axes, base: dict[str, int]) -> tuple[list[_Run], list[Proof]]:
        """Traces of the module at several sizes, the example's first, and further proofs.

        Raises
        ------
        _Fixed
            The module does not run at other sizes of some names.
        """
        runs = [self._traced(base, self.tensors)]
        proofs: list[Proof] = []
        if not base:
            return runs, proofs
        seen = [base]
        self._run_at(size_candidates(base), axes, seen, runs, proofs)
        fixed = [name for name in base if all(sizes[name] == base[name] for sizes in seen)]
        if len(fixed) > 1:
            followers = find_followers(base, fixed, runs_at(self.tensors, axes, base, self._runs))
            del runs[1:], proofs[:], seen[1:]
            self._run_at(with_followers(base, followers), axes, seen, runs, proofs)
            fixed = [name for name in base if all(sizes[name] == base[name] for sizes in seen)]
        if fixed:
            raise _Fixed(self.name, fixed)
        return runs, proofs

    def _run_at(
        self,
        candidates: Iterator[dict[str, int]],
        axes: Axes,
        seen: list[dict[str, int]],
        runs: list[_Run],
        proofs: list[Proof],
    ) -> None:
        """Add traces, and then proofs, at the first candidates at which the module runs."""
        base = seen[0]
        for sizes in candidates:
            is_proof = len(runs) >= self.wanted
            if len(proofs) >= PROOFS:
                return
            # Proofs are at sizes that differ in all names.
            if sizes in seen or (is_proof and any(sizes[name] == base[name] for name in base)):
                continue
            for tensors in all_resized(self.tensors, axes, base, sizes, len(seen)):
                try:
                    if is_proof:
                        with self.state:
                            outputs = [_array(t) for t in self._outputs(tensors)]
                        proofs.append(Proof(sizes, [_array(t) for t in tensors], outputs))
                    else:
                        runs.append(self._traced(sizes, tensors))
                except Refused:
                    raise
                except Exception:  # the module does not run at these sizes
                    continue
                seen.append(sizes)
                break

    # ------------------------------------------------------------ sizes

    def _named_axes(self, dynamic: Any) -> Axes:
        positional, _ = self.arguments["tuple"]
        whole = (tuple(dynamic), {}) if isinstance(dynamic, (tuple, list)) else ((), dict(dynamic))
        args = (*whole[0], *[None] * (len(positional["tuple"]) - len(whole[0])))
        for index, parameter in enumerate(self.parameters):
            if parameter in whole[1] and index >= len(whole[0]):
                args = (*args[:index], whole[1][parameter], *args[index + 1 :])
        axes = list(axes_of((args, whole[1]), self.arguments, "export"))
        for name, tensor, own in zip(self.names, self.tensors, axes, strict=True):
            for axis in own:
                if not -tensor.dim() <= axis < tensor.dim():
                    raise ValueError(
                        message("export", f"an axis of {name}, which has {tensor.dim()}", f"{axis}")
                    )
        return [
            {axis % tensor.dim(): name for axis, name in own.items()}
            for own, tensor in zip(axes, self.tensors, strict=True)
        ]

    def _base_sizes(self, axes: Axes) -> dict[str, int]:
        base: dict[str, int] = {}
        for name, tensor, own in zip(self.names, self.tensors, axes, strict=True):
            for axis, size in own.items():
                if base.setdefault(size, tensor.shape[axis]) != tensor.shape[axis]:
                    got = f"{tensor.shape[axis]} in axis {axis} of {name}"
                    raise ValueError(message("export", f"one size {size}, {base[size]}", got))
        return base

    # ------------------------------------------------------------ the graph

    def _captured(self, runs: list[_Run], proofs: list[Proof], axes: Axes, state: Any) -> Captured:
        built, kept = self._built(runs)
        further = self._beyond(built, axes)
        if further:
            runs = [*runs, *further]
            built, kept = self._built(runs)
        nodes = without_packing(built.nodes)
        constants = {name: _array(tensor) for name, tensor in kept[0].trace.constants.items()}
        _check_constants([run.trace for run in kept])
        inputs = [
            Input(name, _dtype(tensor), tuple(own.get(axis, size) for axis, size in enumerate(tensor.shape)))
            for name, tensor, own in zip(self.names, self.tensors, axes, strict=True)
        ]
        links = [StateLink(self.names[i], built.outputs[o]) for i, o in state]
        links += self._kept_values(built, nodes, constants, inputs)
        wanted = [*built.outputs, *(link.output for link in links)]
        nodes = live(nodes, wanted)
        used = {name for node in nodes for name in node.values()} | set(wanted)
        used |= {link.initial for link in links if link.initial}
        graph = Graph(
            tuple(inputs),
            tuple(nodes),
            tuple(built.outputs),
            {name: array for name, array in constants.items() if name in used},
            tuple(links),
        )
        spec = ProgramSpec(graph, self.arguments, self.results, self.parameters)
        return Captured(spec, [*(run.proof for run in runs), *proofs])

    def _beyond(self, built: Built, axes: Axes) -> list[_Run]:
        """Runs at sizes at which padding would become negative: many modules pad up to a length only."""
        base = self._base_sizes(axes)
        found = []
        for size, number in built.turns:
            name = next(
                (a.get(size.right) for n, a in zip(self.names, axes, strict=True) if n == size.left), None
            )
            if name is None:
                continue
            sizes = {**base, name: number + 1}
            for tensors in all_resized(self.tensors, axes, base, sizes, 1):
                if self._runs(tensors):
                    found.append(self._traced(sizes, tensors))
                    break
        return found

    def _built(self, runs: list[_Run]) -> tuple[Built, list[_Run]]:
        """The nodes of the traces, and their runs: all but a few that are unlike the others."""
        shapes = [run.shapes for run in runs]
        try:
            return Built([run.trace for run in runs], self.names, shapes), runs
        except Refused as refused:
            first = refused
        traces = with_optional([run.trace for run in runs], shapes)
        runs = [run._replace(trace=trace) for run, trace in zip(runs, traces, strict=True)]
        for left_out in range(min(LEFT_OUT, max(len(runs) - 3, 0)) + 1):
            for kept in itertools.combinations(runs, len(runs) - left_out):
                try:
                    built = Built([run.trace for run in kept], self.names, [run.shapes for run in kept])
                except Refused:
                    continue
                else:
                    return built, list(kept)
        raise first

    def _kept_values(
        self, built: Built, nodes: Sequence[Node], constants: dict[str, Any], inputs: list[Input]
    ) -> list[StateLink]:
        """The links of what the module keeps from call to call: it becomes an input with a first value."""
        read = {
            name for node in live(nodes, [*built.outputs, *built.changed.values()]) for name in node.values()
        } | {*built.outputs, *built.changed.values()}
        links = []
        for name, value in built.changed.items():
            if name in constants and name in read:
                inputs.append(Input(name, str(constants[name].dtype), constants[name].shape))
                constants[f"{name}.initial"] = constants.pop(name)
                links.append(StateLink(name, value, f"{name}.initial"))
        return links


def _check_constants(traces: Sequence[Trace]) -> None:
    """Raise Refused if a tensor that a module makes of Python's numbers differs between runs."""
    first = traces[0].constants
    for trace in traces[1:]:
        for name, tensor in trace.constants.items():
            other = first.get(name)
            if other is None or other.shape != tensor.shape or not torch.equal(other, tensor):
                raise Refused(
                    "a tensor made of numbers that depend on sizes or on the numbers of other tensors", ""
                )


def _check_module(module: Any) -> None:
    """Refuse what is no module, and modules whose calls torch does not show."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(message("export", "a torch.nn.Module", brief(module)))
    if isinstance(module, torch.jit.ScriptModule):
        hint = "Write the module in Python, give it the state_dict() of this one, and export it."
        raise TypeError(message("export", "a module that runs in Python", "a TorchScript module", hint))


def _parameters(module: Any, count: int) -> tuple[str, ...]:
    """The names of the first positional parameters of a module's forward."""
    names = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [f"argument{i}" for i in range(len(names), count)]
    return tuple(names[:count])


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().resolve_conj().resolve_neg().contiguous().clone().numpy()


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
