"""`export`: a torch module as a program that runs without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.checks import check_path
from fastrnn.errors import message
from fastrnn.program.pairs import allowed, smallest
from fastrnn.program.program import Program
from fastrnn.program.toolbox import operator_names

# How far outputs may be from the module's: this share of the largest value; or, where a program amplifies
# rounding, as far as that moves them.
SHARE = {"float32": 1e-5, "float64": 1e-11, "complex64": 1e-5, "complex128": 1e-11}


def export(
    module: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: Any = None,
    state: Sequence[tuple[int, int]] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Program:
    """Return any torch module as a program. torch has to be there now, and not when the program runs.

    The module runs a few times at several sizes. What it does is written down operator by operator, and
    numbers that depend on sizes become expressions of them. Python loops whose steps depend on a size become
    loops of the program. The program is returned only if it gives the module's results, at the example's
    sizes and at two others.

    Parameters
    ----------
    module : torch.nn.Module
        In ``eval()``.
    args, kwargs
        Example arguments, with tensors in tuples, lists and dicts.
    dynamic : nested like args, optional
        The axes that may have other sizes, for each tensor: ``{axis: name}``. Axes with one name have one
        size. Example: ``({0: "B", 1: "T"}, None)``. If not given, they are found by running the module at
        other sizes.
    state : sequence of (int, int), optional
        Which results are the next call's arguments: pairs of the number of an argument's tensor and the
        number of a result's tensor, counted in order from 0.
    path : str or path, optional
        Where to save the program.

    Returns
    -------
    Program

    Raises
    ------
    ValueError
        The module is in training mode, or does what no program can: it reads the numbers of tensors in
        Python, draws random numbers, or runs an operator that is missing. The message names the line. Or the
        program and the module disagree.
    TypeError
        An argument is no tensor and no plain value, or ``dynamic`` is nested in another way. Or the module
        is none, or TorchScript.
    """
    from fastrnn.importers.torch_capture.capture import RUNS

    where = None if path is None else check_path("export", path)
    args = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    given = (module, args, dict(kwargs or {}), dynamic, state or ())
    try:
        program = _proven(*given, RUNS[0])
    except Disagreement:
        try:
            program = _proven(*given, RUNS[1])
        except Disagreement as error:
            raise ValueError(str(error)) from error
    if where is not None:
        program.save(where)
    return program


class Disagreement(ValueError):
    """A program and its module have different results."""


def _proven(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic: Any, state: Any, runs: int
) -> Program:
    """Return the program of a module, which gives the module's results."""
    from fastrnn.importers.torch_capture.capture import capture

    captured = capture(module, args, kwargs, operator_names(), dynamic, state, runs)
    program = Program(captured.spec)
    # Inputs whose numbers are drawn from the example's, at other sizes; without such, the example itself.
    program.golden_inputs = smallest([proof.inputs for proof in captured.proofs[1:] or captured.proofs])
    name = type(module).__name__
    for proof in captured.proofs:
        arrays = [*(np.asarray(array, order="C") for array in proof.inputs), *program._hidden]
        try:
            outputs = program.run(arrays)
        except ValueError as error:
            raise Disagreement(f"{error} (with {_named(proof.sizes)})") from error
        far = [
            index
            for index, (output, wanted) in enumerate(zip(outputs, proof.outputs, strict=False))
            if not _is_near(output, wanted, _share(wanted))
        ]
        rounding = allowed(program, proof.inputs) if far else ()
        for index in far:
            most = rounding[index] if index < len(rounding) else 0.0
            if not _is_near(outputs[index], proof.outputs[index], most):
                raise _disagreement(name, index, proof.sizes, outputs[index], proof.outputs[index])
    return program


def _named(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{size} = {number}" for size, number in sizes.items())


def _share(wanted: Any) -> float:
    """How far a result may be from the module's."""
    if wanted.dtype.kind not in "fc":
        return 0.0
    return float(SHARE[wanted.dtype.name] * max(np.abs(wanted[np.isfinite(wanted)]).max(initial=0), 1e-6))


def _is_near(output: Any, wanted: Any, most: float) -> bool:
    """Whether a result is the module's, of the same type and shape and at most this far away."""
    if output.shape != wanted.shape or output.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind not in "fc":
        return np.array_equal(output, wanted)
    finite = np.isfinite(wanted)
    return bool(np.abs(output[finite] - wanted[finite]).max(initial=0) <= most) and np.array_equal(
        output[~finite], wanted[~finite], equal_nan=True
    )


def _disagreement(name: str, index: int, sizes: Mapping[str, int], output: Any, wanted: Any) -> Disagreement:
    at = f" at {_named(sizes)}" if sizes else ""
    expected = f"result {index}{at} as {name} gives it"
    if output.shape != wanted.shape or output.dtype != wanted.dtype:
        got = f"{output.dtype} of shape {output.shape}"
        return Disagreement(message("export", f"{expected}, {wanted.dtype} of shape {wanted.shape}", got))
    if wanted.dtype.kind in "fc":
        finite = np.isfinite(wanted)
        error = float(np.abs(output[finite] - wanted[finite]).max(initial=0))
    else:
        error = 0.0
    hint = "The module does something that depends on sizes or numbers in a way that was not seen."
    return Disagreement(message("export", expected, f"one {error:.3g} away", hint))
