"""torch's own inputs for its modules, of its own tests: `from_torch` gives what each module gives."""

import collections
import sys
import types
import unittest
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn.importers.torch_module import KINDS

torch = pytest.importorskip("torch")
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-11}
# What from_torch refuses of modules that it knows, by a word of the message.
REFUSED = ("a LayerNorm over the last axis", "the statistics of training")


@pytest.fixture(scope="module")
def modules():
    """torch's table of modules. It imports a package that nothing here needs."""
    if "expecttest" not in sys.modules:
        sys.modules["expecttest"] = stub = types.ModuleType("expecttest")
        stub.TestCase = unittest.TestCase
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = pytest.importorskip("torch.testing._internal.common_modules").module_db
    return [info for info in table if info.module_cls.__name__ in KINDS]


def flat(value):
    """Return the arrays of an output, in order."""
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in flat(part)]
    return [np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)]


def plain(value):
    """Return an argument with arrays for tensors."""
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def difference(got, wanted, tolerance):
    """Say how two outputs differ, or return None."""
    if [(a.shape, a.dtype) for a in got] != [(a.shape, a.dtype) for a in wanted]:
        return f"{[(a.shape, a.dtype) for a in got]} for {[(a.shape, a.dtype) for a in wanted]}"
    for one, other in zip(got, wanted, strict=True):
        scale = tolerance * max(1.0, np.abs(other).max(initial=0.0))
        if not np.allclose(one, other, rtol=tolerance, atol=scale, equal_nan=True):
            return f"{np.abs(one - other).max():.3g} away"
    return None


@pytest.mark.filterwarnings("ignore")
def test_every_module_that_from_torch_takes_agrees(modules):
    counts, problems = collections.Counter(), []
    for info in modules:
        for dtype, tolerance in TOLERANCES.items():
            torch.manual_seed(0)
            inputs = info.module_inputs_func(
                info, device="cpu", dtype=dtype, requires_grad=False, training=False
            )
            for given in inputs:
                made, call = given.constructor_input, given.forward_input
                module = info.module_cls(*made.args, **made.kwargs).to(dtype).eval()
                try:
                    layer = fastrnn.from_torch(module)
                except ValueError as error:
                    if not any(words in str(error) for words in REFUSED):
                        problems.append(f"{module}: {error}")
                    counts["refused"] += 1
                    continue
                with torch.no_grad():
                    wanted = module(*call.args, **call.kwargs)
                    try:
                        got = layer(*plain(call.args), **{n: plain(a) for n, a in call.kwargs.items()})
                    except (TypeError, ValueError) as error:
                        problems.append(f"{module}: {error}")
                        continue
                problem = difference(flat(got), flat(wanted), tolerance)
                counts["agree"] += problem is None
                if problem is not None:
                    problems.append(f"{module}: {problem}")
    print(counts)
    assert not problems, "\n".join(problems)
    assert counts["agree"] > 250
