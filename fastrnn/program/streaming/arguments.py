"""What a chunk is given: the arguments of a call without the states, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import join, message
from fastrnn.graph import Input
from fastrnn.structure import flatten, leaves_of

if TYPE_CHECKING:
    from fastrnn.program.program import Program


class Arguments:
    """Reads the arguments of a program's chunks.

    They are those of a call, in the same order and by the same names. Arguments that hold nothing but states
    are left out. Where states are nested beside other arrays, anything may stand in their place.

    Parameters
    ----------
    where : str
        Who asks, for messages.
    program : Program
    inputs : sequence of Input
        Those that are no states.
    """

    def __init__(self, where: str, program: Program, inputs: Sequence[Input]) -> None:
        self._where, self.inputs = where, tuple(inputs)
        wanted = {form.name for form in inputs}
        # The inputs in the order of the arguments; None: a state.
        self._order = [form.name if form.name in wanted else None for form in program.inputs]
        positional, named = program.spec.arguments["tuple"]
        self._structures = dict(zip(program.spec.parameters, positional["tuple"], strict=True))
        self._structures.update(named["dict"])
        self._positional = [
            name for name in program.spec.parameters if self._has_inputs(self._structures[name])
        ]
        self._named = [name for name in named["dict"] if self._has_inputs(named["dict"][name])]

    def _has_inputs(self, structure: Any) -> bool:
        leaves = list(leaves_of(structure))
        return not leaves or any(self._order[index] is not None for index in leaves)

    def read(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        sizes: Mapping[str, int],
        time: str | None = None,
    ) -> tuple[list[Array], dict[str, int]]:
        """Return the array of each input, and the sizes that they have.

        Parameters
        ----------
        sizes : mapping of str to int
            Those that are known.
        time : str, optional
            A size whose axis the arrays do not have: it is added.
        """
        values = dict(kwargs)
        if len(args) > len(self._positional):
            raise TypeError(message(self._where, self._expected(), f"{len(args)} arguments"))
        for name, value in zip(self._positional, args, strict=False):
            if name in values:
                raise TypeError(message(self._where, f"{name} once", "it twice"))
            values[name] = value
        if values.keys() != {*self._positional, *self._named}:
            got = join(values) if values else "no arguments"
            raise TypeError(message(self._where, self._expected(), got))
        found: dict[int, Any] = {}
        for name, structure in self._structures.items():
            if name not in values:
                continue
            leaves: list[Any] = []
            flatten(self._where, structure, values[name], name, leaves)
            found.update(zip(leaves_of(structure), leaves, strict=True))
        known = {name: (size, "the stream") for name, size in sizes.items()}
        arrays = {}
        forms = {form.name: form for form in self.inputs}
        for index, own in enumerate(self._order):
            if own is not None:
                arrays[own] = self._array(forms[own], found[index], known, time)
        return [arrays[form.name] for form in self.inputs], {name: size for name, (size, _) in known.items()}

    def _array(self, form: Input, value: Any, known: dict[str, tuple[int, str]], time: str | None) -> Array:
        from fastrnn.program.program import checked

        if time is None or time not in form.shape:
            return checked(self._where, form, value, known)
        axis = form.shape.index(time)
        shape = (*form.shape[:axis], *form.shape[axis + 1 :])
        return np.expand_dims(checked(self._where, form._replace(shape=shape), value, known), axis)

    def _expected(self) -> str:
        names = [*self._positional, *self._named]
        return join(names) if names else "no arguments"
