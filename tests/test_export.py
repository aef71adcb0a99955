"""`fastrnn.export`: torch modules as programs, compared with torch at sizes that the export has not seen."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

import attributes_to_export  # noqa: E402
import loops_to_export  # noqa: E402
import models_to_export  # noqa: E402
import sizes_to_export  # noqa: E402
import speech_to_export  # noqa: E402
import taggers_to_export  # noqa: E402

import fastrnn  # noqa: E402

ZOO = Path(os.environ.get("FASTRNN_ZOO", Path(__file__).parents[2] / "shared" / "zoo")) / "zoo.py"
SHARE = 1e-5  # of the largest value

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def zoo_cases() -> dict[str, Any]:
    if not ZOO.exists():
        return {}
    spec = importlib.util.spec_from_file_location("zoo", ZOO)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return module.CASES


MODULES = (
    models_to_export, speech_to_export, taggers_to_export, loops_to_export, attributes_to_export,
    sizes_to_export,
)  # fmt: skip
OWN = {name: case for module in MODULES for name, case in module.CASES.items()}
CASES = {**OWN, **{f"zoo_{name}": case for name, case in zoo_cases().items()}}
REFUSED = {name: case for name, case in OWN.items() if case.refused}


def leaves(value: Any) -> list[Any]:
    """The arrays of a nested value, in order."""
    if isinstance(value, torch.Tensor):
        return [value.detach().numpy()]
    if isinstance(value, np.ndarray):
        return [value]
    if dataclasses.is_dataclass(value):
        value = vars(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [leaf for part in parts for leaf in leaves(part)]


def arrays(value: Any) -> Any:
    """A nested value with arrays for tensors."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: arrays(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(arrays(part) for part in value)
    return value


def check_same(program: fastrnn.Program, case: Any, sizes: dict[str, int]) -> None:
    args = case.args(seed=7, **sizes)
    keywords = getattr(case, "keywords", {})
    with torch.no_grad():
        wanted = leaves(case.build()(*copy.deepcopy(args), **keywords))
    found = leaves(program(*arrays(args), **arrays(keywords)))
    assert [a.shape for a in found] == [a.shape for a in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=SHARE * max(np.abs(b).max(initial=0), 1e-6))


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED])
def test_export_holds_at_other_sizes(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    fastrnn.export(
        case.build(),
        case.args(),
        getattr(case, "keywords", {}),
        dynamic=case.dynamic,
        state=case.state,
        path=tmp_path / "program",
    )
    program = fastrnn.load(tmp_path / "program")
    check_same(program, case, case.sizes)
    named = {size for part in leaves_of_axes(case.dynamic) for size in part}
    if name not in FIXED:
        check_same(program, case, case.other)
    assert {size for form in program.inputs for size in form.shape if isinstance(size, str)} == named


# At the example's batch only: its states are arrays of that batch.
FIXED = ("onsets",)


def leaves_of_axes(dynamic: Any) -> list[list[str]]:
    """The names of sizes in a declaration of dynamic axes."""
    if isinstance(dynamic, dict) and all(isinstance(key, int) for key in dynamic):
        return [list(dynamic.values())]
    parts = dynamic.values() if isinstance(dynamic, dict) else dynamic or ()
    return [found for part in parts for found in leaves_of_axes(part)]


FOUND = (
    "cells_append", "packed_total", "packed_list", "sb3", "flair", "one_row", "rnnt_stream", "zip_enumerate",
    "pyramid", "lengths_of_mask", "teacher_loop", "packed_whole",
)  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_export_finds_the_axes_that_may_change(name: str) -> None:
    case = OWN[name]
    program = fastrnn.export(case.build(), case.args(), case.keywords, state=case.state)
    check_same(program, case, case.other)


@pytest.mark.parametrize("name", REFUSED)
def test_export_refuses_what_no_program_can_do(name: str) -> None:
    case = REFUSED[name]
    with pytest.raises(ValueError, match=case.refused) as error:
        fastrnn.export(case.build(), case.args(), dynamic=case.dynamic)
    assert "loops_to_export.py:" in str(error.value)


def test_export_refuses_what_one_size_alone_shows() -> None:
    case = OWN["lengthened"]
    with pytest.raises(ValueError, match=r"one size alone .*: give an example of another size. At .*F.pad"):
        fastrnn.export(case.build(), case.args(T=7), dynamic=case.dynamic)


@pytest.mark.parametrize("name", ["amp_hidden", "caching", "counting"])
def test_export_lifts_what_a_module_keeps_into_state(name: str) -> None:
    case = OWN[name]
    program = fastrnn.export(case.build(), case.args(), dynamic=case.dynamic)
    module = case.build()
    states = list(program._hidden)
    assert states
    for seed, sizes in enumerate((case.sizes, case.other, case.sizes)):
        args = case.args(seed=seed, **sizes)
        with torch.no_grad():
            wanted = leaves(module(*args))
        outputs = program.run([*(arg.numpy() for arg in args), *states])
        states = outputs[len(wanted) :]
        for a, b in zip(outputs, wanted, strict=False):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


class Growing(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.seen = torch.nn.GRUCell(6, 6), []

    def forward(self, x: Any) -> Any:
        h = self.cell(x, self.seen[-1] if self.seen else None)
        self.seen.append(h)
        return h


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.calls = torch.nn.GRUCell(6, 6), 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return self.cell(x) * self.calls


@pytest.mark.parametrize(("made", "named"), [(Growing, "seen"), (Counting, "calls")])
def test_export_refuses_what_changes_from_call_to_call(made: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        fastrnn.export(made().eval(), (torch.randn(2, 6),), dynamic=None)


def test_export_leaves_the_module_as_it_was() -> None:
    case = OWN["counting"]
    module = case.build()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fastrnn.export(module, case.args(), dynamic=case.dynamic)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


class Attending(torch.nn.Module):
    """Fused attention gives no weights: its second result is None."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(6, 8, batch_first=True)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("mask", torch.triu(torch.full((5, 5), -torch.inf), 1))

    def forward(self, x: Any) -> Any:
        y = self.gru(x)[0]
        return y + self.attention(y, y, y, attn_mask=self.mask, need_weights=False)[0]


def test_results_that_are_none_are_left_out() -> None:
    module = Attending().eval()
    program = fastrnn.export(module, (torch.randn(2, 5, 6),), dynamic=({0: "B"},))
    x = torch.randn(3, 5, 6)
    np.testing.assert_allclose(program(x.numpy()), module(x).detach().numpy(), atol=1e-5)


class Bytes(torch.nn.Module):
    """Bytes that become real numbers by what is done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = torch.nn.GRU(8, 6, batch_first=True), torch.nn.Linear(6, 2)

    def forward(self, image: Any) -> Any:
        y, _ = self.gru((image / 255 - 0.5) / 0.5)
        seen = torch.where(image > 99, image, 0.5)
        return self.out(y + seen[..., :6]) * (image < 99).sum().sqrt()


def test_whole_numbers_become_reals_of_the_programs_precision(tmp_path: Path) -> None:
    module = Bytes().eval()
    image = torch.randint(0, 256, (2, 5, 8), dtype=torch.uint8)
    program = fastrnn.export(module, (image,), dynamic=({0: "B", 1: "T"},), path=tmp_path / "bytes")
    assert program.verify()["passed"]
    more = torch.randint(0, 256, (3, 7, 8), dtype=torch.uint8)
    torch.set_default_dtype(torch.float64)  # as whole numbers become reals there
    try:
        wanted = module.double()(more).detach().numpy()
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.abs(program(more) - wanted).max() < 1e-5 * np.abs(wanted).max()
    wide = fastrnn.load(tmp_path / "bytes", precision="float64")(more)
    assert wide.dtype == np.float64 and np.abs(wide - wanted).max() < 1e-11 * np.abs(wanted).max()


def test_export_refuses_what_is_no_module_in_python() -> None:
    x = torch.randn(2, 5, 6)
    script = torch.jit.trace(torch.nn.Linear(6, 6), x)
    for given, words in ((script, "got a TorchScript module"), (3, "expected a torch.nn.Module, got 3")):
        with pytest.raises(TypeError, match=words):
            fastrnn.export(given, (x,))


class Chaotic(torch.nn.Module):
    """Doubles every difference about 14 times, also that of sums in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(100, 30)

    def forward(self, x: Any) -> Any:
        y = torch.sigmoid(self.linear(x))
        for _ in range(14):
            y = 3.9 * y * (1 - y)
        return y


def test_results_may_be_as_far_as_rounding_moves_them() -> None:
    torch.manual_seed(0)
    module, x = Chaotic().eval(), torch.randn(40, 100)
    program = fastrnn.export(module, (x,), dynamic=({0: "B"},))
    with torch.inference_mode():
        wanted = module(x).numpy()
    error = np.abs(program(x.numpy()) - wanted).max()
    assert SHARE * np.abs(wanted).max() < error < 0.1
    assert program.verify((x.numpy(),), wanted)["passed"]
