"""What a module keeps from call to call: its buffers, and tensors in attributes, lists, deques and dicts."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fastrnn.errors import message
from fastrnn.importers.torch_capture.structure import tensors_of, with_tensors

OWN = {*vars(torch.nn.Module()), "_flat_weights", "_flat_weights_names", "_flat_weight_refs", "_all_weights"}
PLAIN = (bool, int, float, complex, str, type(None))


class State:
    """What a module keeps. As a context, it puts back in the end what was there in the beginning."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._parameters = {id(p) for p in module.parameters()}
        self._caches: set[str] = set()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name: "hidden.0", "encoder.running_mean"."""
        found = dict(self._module.named_buffers(remove_duplicate=False))
        for path, value in self._attributes():
            for name, part in _leaves(path, value):
                if isinstance(part, torch.Tensor) and id(part) not in self._parameters:
                    found.setdefault(name, part)
        return found

    def plain(self) -> dict[str, Any]:
        """Return what is kept beside tensors: numbers, texts and None by name, and lengths of containers."""
        found: dict[str, Any] = {}
        for path, value in self._attributes():
            if path in self._caches:
                continue
            if isinstance(value, (list, deque, dict)):
                found[path] = len(value)
            found.update((name, part) for name, part in _leaves(path, value) if isinstance(part, PLAIN))
        return found

    def prime(self, run: Any) -> None:
        """Give attributes that a first call makes, such as ``hidden`` that is None at first, zeros.

        Caches stay as they are before the first call, so that each run makes them: a second call changes
        nothing and has the results of the first one, while zeros give others, or a number says what they are
        for.

        run: calls the module and returns its results' tensors.

        Raises
        ------
        ValueError
            The module has other results with zeros than with what it has before its first call.
        """
        self._separate()
        with self:
            plain = self.plain()
            first = run()
            after, plain_after = self.tensors(), self.plain()
            is_cached = _are_same(first, run()) and self.plain() == plain_after
            made = {path: value for path, value in self._attributes() if any(_tensors(path, value))}
            before = {}
        missing = after.keys() - self.tensors().keys()
        if not missing:
            return
        for path, value in made.items():
            if any(name in missing for name, _ in _tensors(path, value)):
                before[path] = value
        kept = {path: value for path, value in self._attributes() if path in before}
        self._set({path: _zeros(value) for path, value in before.items()})
        with self:
            is_same = _are_same(first, run())
        changed = {path for path in plain_after if plain_after[path] != plain.get(path)}
        if is_cached and (changed or not is_same):
            self._set(kept)
            self._caches = before.keys() | changed
        elif not is_same:
            names = ", ".join(before)
            hint = "Give its first value in the constructor, or pass it as an argument and name it in state."
            raise ValueError(
                message("export", f"{names} to be as zeros before the first call", "other results", hint)
            )

    def _set(self, values: dict[str, Any]) -> None:
        for path, value in values.items():
            owner, _, attribute = path.rpartition(".")
            setattr(self._module.get_submodule(owner), attribute, value)

    def _separate(self) -> None:
        """Give places that hold one tensor at first, as `[zeros] * 2` does, tensors of their own."""
        seen = {id(buffer) for buffer in self._module.buffers()}
        for path, value in list(self._attributes()):
            if isinstance(value, torch.nn.Parameter):
                continue
            own = [tensor for _, tensor in _tensors(path, value)]
            if len({*map(id, own)} - seen) < len(own):
                owner, _, attribute = path.rpartition(".")
                copies = iter([tensor.detach().clone() for tensor in tensors_of(value)])
                setattr(self._module.get_submodule(owner), attribute, with_tensors(value, copies))
            seen.update(map(id, own))

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        for prefix, part in self._module.named_modules():
            for name, value in vars(part).items():
                if name not in OWN:
                    yield (f"{prefix}.{name}" if prefix else name), value

    def __enter__(self) -> State:
        self._kept = [
            (
                part,
                dict(vars(part)),
                dict(part._buffers),
                dict(part._parameters),
                {k: _copied(v) for k, v in vars(part).items() if k not in OWN},
            )
            for part in self._module.modules()
        ]
        self._contents = [(t, t.detach().clone()) for t in self.tensors().values()]
        return self

    def __exit__(self, *error: object) -> None:
        for part, attributes, buffers, parameters, copies in self._kept:
            own = vars(part)
            for name in own.keys() - attributes.keys():
                del own[name]
            own.update(attributes)
            own.update(copies)
            for registered, before in ((part._buffers, buffers), (part._parameters, parameters)):
                registered.clear()
                registered.update(before)
        with torch.inference_mode():
            for tensor, content in self._contents:
                if tensor.shape == content.shape and not torch.equal(tensor, content):
                    tensor.copy_(content)


def _are_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple, deque)):
        for index, part in enumerate(value):
            yield from _leaves(f"{path}.{index}", part)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(f"{path}.{key}", part)
    else:
        yield path, value


def _tensors(path: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, part) for name, part in _leaves(path, value) if isinstance(part, torch.Tensor))


def _copied(value: Any) -> Any:
    """A value whose containers are copies. Tensors and other things in them are the same."""
    if isinstance(value, (list, deque)):
        made = copy.copy(value)
        for index, part in enumerate(value):
            made[index] = _copied(part)
        return made
    if type(value) is dict:
        return {key: _copied(part) for key, part in value.items()}
    return value


def _zeros(value: Any) -> Any:
    """A nested value with zeros for tensors."""
    return with_tensors(value, iter([torch.zeros_like(t) for t in tensors_of(value)]))
