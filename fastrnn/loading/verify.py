"""`verify`: the tests that a saved model carries, run on the model that its file makes."""

from __future__ import annotations

from fastrnn.errors import FormatError, message
from fastrnn.importers import FileLike, Source, StateDict, read_stored
from fastrnn.loading.load import build_program, build_saved, read_saved, read_saved_program
from fastrnn.program.self_test import compare_example, fits_golden
from fastrnn.program.sequential import build
from fastrnn.saving.golden import Comparison, compare
from fastrnn.saving.model_file import is_saved
from fastrnn.saving.program_file import is_program


class Verification(Comparison):
    """The result of the tests of a file. The fields of a `Comparison` are those of its self-test.

    Attributes
    ----------
    passed : bool
        Of both tests.
    self_test_passed : bool
    example : Comparison or None
        The result of the example from torch. None if the file has none: the model was never compared with
        torch.
    taken_for_granted : list of str or None
        What neither the state dict said nor an example decided, as names in `spec.GRANTED`.
    """

    self_test_passed: bool
    example: Comparison | None
    taken_for_granted: list[str] | None


def verify(file: FileLike) -> Verification:
    """Run the tests of a file that `save` wrote: its self-test, and its example from torch if it has one.

    Parameters
    ----------
    file : path, bytes, or file open for reading bytes

    Returns
    -------
    Verification
        A dict.

    Raises
    ------
    FormatError
        The file is damaged, or is not a model that `save` wrote.
    OSError
        The file does not exist or cannot be read.
    """
    source = Source(file)
    return verify_read(source.where, read_stored(source))


def verify_read(where: str, state_dict: StateDict) -> Verification:
    """Run the tests of a file of this name that is read already. The errors are those of `verify`."""
    if not is_saved(state_dict):
        hint = "fastrnn convert makes one from a state dict."
        raise FormatError(message(where, "a model that fastrnn saved", state_dict.file_format, hint))
    if is_program(state_dict):
        return _verify_program(where, state_dict)
    saved = read_saved(where, state_dict)
    model = build_saved(where, saved)
    x, y = saved.golden_input, saved.golden_output
    if x is None or y is None or not fits_golden(model, x, y):
        raise FormatError(message(where, "a self-test of this model", "another, or none"))
    try:
        result = compare(model(x)[0], y, saved.tolerance)
        example = None
        if model.example is not None:
            example = compare_example(model, model.example, build)
    except ValueError as error:  # a layer refuses the input, such as a softmax over a missing axis
        raise FormatError(
            message(where, "a model that takes the inputs of its tests", f"one that does not ({error})")
        ) from error
    return {
        **result,
        "passed": result["passed"] and (example is None or example["passed"]),
        "self_test_passed": result["passed"],
        "example": example,
        "taken_for_granted": None if saved.taken_for_granted is None else list(saved.taken_for_granted),
    }


def _verify_program(where: str, state_dict: StateDict) -> Verification:
    from fastrnn.program.pairs import compare_pair, fits, join_comparisons

    saved = read_saved_program(where, state_dict)
    program = build_program(where, saved)
    pairs = [*saved.golden, *([] if saved.example is None else [saved.example])]
    if not saved.golden or not all(fits(program, pair) for pair in pairs):
        raise FormatError(message(where, "a self-test of this program", "another, or none"))
    try:
        result = join_comparisons([compare_pair(program, pair) for pair in saved.golden])
        example = None if saved.example is None else compare_pair(program, saved.example)
    except ValueError as error:
        got = f"one that does not ({error})"
        raise FormatError(message(where, "a program that takes the inputs of its tests", got)) from error
    return {
        **result,
        "passed": result["passed"] and (example is None or example["passed"]),
        "self_test_passed": result["passed"],
        "example": example,
        "taken_for_granted": None,
    }
