"""A torch module as a program: run at several sizes, compared, written as one graph."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fastrnn.errors import message
from fastrnn.graph import Graph, Input, Node, ProgramSpec, StateLink
from fastrnn.importers.torch_capture.build import Built
from fastrnn.importers.torch_capture.examples import Axes, find_axes, resized, size_candidates
from fastrnn.importers.torch_capture.packed import without_packing
from fastrnn.importers.torch_capture.recorder import Refused, Trace, record
from fastrnn.importers.torch_capture.structure import axes_of, describe
from fastrnn.structure import names_of, rebuild

RUNS = 6  # traces at different sizes
PROOFS = 2  # runs at further sizes, which show that the graph holds there


class Proof(NamedTuple):
    """Inputs, and what the module returned for them: arrays in order."""

    sizes: dict[str, int]
    inputs: list[Any]
    outputs: list[Any]


class Captured(NamedTuple):
    """A module as a program, and runs of the module to compare it with."""

    spec: ProgramSpec
    proofs: list[Proof]


def capture(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any = None, state: Any = ()
) -> Captured:
    """Return the program of a module. The parameters and errors are those of `fastrnn.export`."""
    return _Capture(module, args, kwargs).run(dynamic, state)


class _Capture:
    def __init__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.module = module
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
        taken = {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
        self.names = [f"{name}.input" if name in taken else name for name in self.names]
        self.attributes = _Attributes(module)

    def run(self, dynamic: Any, state: Any) -> Captured:
        first, result = self._trace(self.tensors)
        if dynamic is None:
            axes = find_axes(self.tensors, self._runs)
        else:
            axes = self._named_axes(dynamic)
        base = self._base_sizes(axes)
        wanted = RUNS if base else 1
        traces, shapes, proofs = [first], [[tuple(t.shape) for t in self.tensors]], []
        proofs.append(self._proof(base, self.tensors))
        seen = [base]
        for sizes in self._sizes(base):
            if len(traces) >= wanted and len(proofs) > PROOFS:
                break
            if sizes in seen:
                continue
            tensors = [resized(t, a, base, sizes, len(seen)) for t, a in zip(self.tensors, axes, strict=True)]
            # The last runs are proofs: at sizes that differ in all names.
            is_proof = len(traces) >= wanted
            if is_proof and any(sizes[name] == base[name] for name in base):
                continue
            try:
                if is_proof:
                    proofs.append(self._proof(sizes, tensors))
                else:
                    traces.append(self._trace(tensors)[0])
                    shapes.append([tuple(t.shape) for t in tensors])
            except Refused as refused:
                raise self._refusal(refused) from None
            except Exception:  # the module does not run at these sizes
                continue
            seen.append(sizes)
        self._check_varied(base, seen)
        try:
            _refuse_reads(traces)
            return self._graph(traces, shapes, axes, result, state, proofs)
        except Refused as refused:
            raise self._refusal(refused) from None

    # ------------------------------------------------------------ runs

    def _trace(self, tensors: Sequence[torch.Tensor]) -> tuple[Trace, Any]:
        try:
            with self.attributes.kept():
                args, kwargs = rebuild(self.arguments, [t.clone() for t in tensors])
                trace, result = record(self.module, args, kwargs, self.attributes)
                return trace, result
        except Refused as refused:
            raise self._refusal(refused) from None

    def _runs(self, tensors: Sequence[torch.Tensor]) -> bool:
        try:
            with self.attributes.kept(), torch.no_grad():
                args, kwargs = rebuild(self.arguments, [t.clone() for t in tensors])
                self.module(*args, **kwargs)
        except Exception:  # whatever a module raises for a size that it does not take
            return False
        return True

    def _proof(self, sizes: dict[str, int], tensors: Sequence[torch.Tensor]) -> Proof:
        with self.attributes.kept(), torch.no_grad():
            given = [t.clone() for t in tensors]
            args, kwargs = rebuild(self.arguments, given)
            result = self.module(*args, **kwargs)
            outputs: list[torch.Tensor] = []
            describe("export", result, outputs)
            return Proof(sizes, [t.clone().numpy() for t in tensors], [_array(t) for t in outputs])

    # ------------------------------------------------------------ sizes

    def _named_axes(self, dynamic: Any) -> Axes:
        positional = self.arguments["tuple"][0]
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

    @staticmethod
    def _sizes(base: dict[str, int]) -> Any:
        if not base:
            return
        names = list(base)
        candidates = list(size_candidates(base))
        single = [c for c in candidates if sum(c[n] != base[n] for n in names) == 1]
        joint = [c for c in candidates if sum(c[n] != base[n] for n in names) > 1]
        # Two other sizes of each name, then all together.
        for name in names:
            yield from [c for c in single if c[name] != base[name]][:2]
        yield from joint
        yield from single

    def _check_varied(self, base: dict[str, int], seen: list[dict[str, int]]) -> None:
        fixed = [name for name in base if all(sizes[name] == base[name] for sizes in seen)]
        if fixed:
            hint = f"{self.name} runs at no other size that was tried. Leave it out of dynamic."
            raise ValueError(message("export", "sizes that may change", ", ".join(fixed), hint))

    # ------------------------------------------------------------ the graph

    def _graph(
        self,
        traces: list[Trace],
        shapes: list[list[tuple[int, ...]]],
        axes: Axes,
        result: Any,
        state: Any,
        proofs: list[Proof],
    ) -> Captured:
        built = Built(traces, self.names, list(zip(*shapes, strict=True)))
        leaves: list[torch.Tensor] = []
        results = describe("export", result, leaves)
        nodes = without_packing(built.nodes)
        constants = {name: _array(tensor) for name, tensor in traces[0].constants.items()}
        inputs = [
            Input(name, _dtype(tensor), tuple(own.get(axis, size) for axis, size in enumerate(tensor.shape)))
            for name, tensor, own in zip(self.names, self.tensors, axes, strict=True)
        ]
        links = [StateLink(self.names[i], built.outputs[o]) for i, o in state]
        for name, value in built.mutated.items():
            if name in constants:
                inputs.append(Input(name, str(constants[name].dtype), constants[name].shape))
                constants[f"{name}.initial"] = constants.pop(name)
                links.append(StateLink(name, value, f"{name}.initial"))
        kept = live(nodes, [*built.outputs, *(link.output for link in links)])
        used = {name for node in kept for name in node.values()} | set(built.outputs)
        used |= {link.initial for link in links if link.initial} | {link.output for link in links}
        constants = {name: array for name, array in constants.items() if name in used}
        graph = Graph(tuple(inputs), tuple(kept), tuple(built.outputs), constants, tuple(links))
        return Captured(ProgramSpec(graph, self.arguments, results, self.parameters), proofs)

    def _refusal(self, refused: Refused) -> ValueError:
        hint = f"At {refused.where}" if refused.where else ""
        return ValueError(message("export", f"{self.name} to do what a program can", refused.what, hint))


def live(nodes: Sequence[Node], wanted: Sequence[str]) -> list[Node]:
    """Return the nodes that the wanted values depend on."""
    needed = set(wanted)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.values())
    return kept[::-1]


def _refuse_reads(traces: list[Trace]) -> None:
    """Refuse modules whose Python code depends on the numbers in tensors."""
    for trace in traces:
        for read in trace.reads:
            if not _is_size(trace, read.value):
                advice = "export the step that is repeated, and keep the decision in Python"
                raise Refused(f"a number of a tensor, read in Python ({read.number}): {advice}", read.where)


def _is_size(trace: Trace, value: Any) -> bool:
    """Whether a value that was read is the batch size of packed sequences."""
    if getattr(value, "record", -1) < 0:
        return False
    record = trace.records[value.record]
    source = record.arguments.get("self")
    return (
        record.operator == "select"
        and record.arguments.get("index") == 0
        and getattr(source, "record", -1) >= 0
        and trace.records[source.record].operator == "_pack_padded_sequence"
        and source.result == 1
    )


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


class _Attributes:
    """The tensors that modules keep as attributes and in buffers, so that runs do not change them."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def kept(self) -> _Attributes:
        return self

    def __enter__(self) -> None:
        self._before = [(part, dict(vars(part))) for part in self._module.modules()]
        self._buffers = [(b, b.detach().clone()) for b in self._module.buffers()]
        self._lists = [
            (value, copy.copy(value))
            for _, attributes in self._before
            for name, value in attributes.items()
            if isinstance(value, (list, dict)) and not name.startswith("_")
        ]

    def __exit__(self, *error: object) -> None:
        for part, attributes in self._before:
            own = vars(part)
            for name in own.keys() - attributes.keys():
                del own[name]
            own.update(attributes)
        with torch.no_grad():
            for buffer, content in self._buffers:
                if not torch.equal(buffer, content):
                    buffer.copy_(content)
        for value, content in self._lists:
            if isinstance(value, list):
                value[:] = content
            else:
                value.clear()
                value.update(content)
