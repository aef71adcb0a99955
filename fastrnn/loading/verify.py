"""`verify`: the tests that a saved model carries."""

from __future__ import annotations

from dataclasses import replace

from fastrnn.errors import FormatError, message
from fastrnn.importers import FileLike, Source, load_state_dict
from fastrnn.loading.load import build_saved, read_saved
from fastrnn.program.self_test import compare_example, fits_golden
from fastrnn.program.sequential import build, nest_state
from fastrnn.saving.golden import Comparison, compare
from fastrnn.saving.model_file import is_saved


class Verification(Comparison):
    """What the tests of a file give: the self-test's, and those of its example from torch.

    `passed` is for both, `self_test_passed` for the first. `example` is None where the file has none, so that
    the model was never compared with torch's output; `taken_for_granted` is then what no state dict told.
    """

    self_test_passed: bool
    example: Comparison | None
    taken_for_granted: list[str] | None


def verify(file: FileLike) -> Verification:
    """Run the tests of a file that `save` wrote: its self-test, and its example from torch if it has one.

    Returns
    -------
    dict
        passed (bool, for both), largest_error and tolerance (absolute), values (how many were compared) and
        hint of the self-test; the same of the example under ``example``, None where there is none; and
        ``taken_for_granted``.

    Raises
    ------
    FormatError
        The file is damaged, or no model that `save` wrote.
    """
    source = Source(file)
    where = source.where
    state_dict = load_state_dict(source)
    if not is_saved(state_dict):
        hint = "fastrnn convert makes one of a state dict."
        raise FormatError(message(where, "a model that fastrnn saved", state_dict.file_format, hint))
    saved = read_saved(where, state_dict)
    model = build_saved(where, saved)
    x, y = saved.golden_input, saved.golden_output
    if x is None or y is None or not fits_golden(model, x, y):
        raise FormatError(message(where, "a self-test of this model", "another, or none"))
    try:
        result = compare(model(x)[0], y, saved.tolerance)
        example = None
        if saved.example is not None:
            state = None if saved.example.state is None else nest_state(model, saved.example.state)
            example = compare_example(model, replace(saved.example, state=state), build)
    except ValueError as error:  # a layer takes no such input, as a softmax over an axis too many
        raise FormatError(
            message(where, "a model that takes its self-test", f"one that does not ({error})")
        ) from error
    return {
        **result,
        "passed": result["passed"] and (example is None or example["passed"]),
        "self_test_passed": result["passed"],
        "example": example,
        "taken_for_granted": None if saved.taken_for_granted is None else list(saved.taken_for_granted),
    }
