"""The operators of torch and of the reference, called with the same arguments."""

import collections
import itertools
import re
import sys
import types
import unittest
import warnings

import numpy as np
import pytest

from fastrnn.errors import brief
from fastrnn.reference.operators import OPERATORS

torch = pytest.importorskip("torch")

# Relative and absolute differences that are left to the arithmetic of torch, which has float32's.
TOLERANCES = {"float32": (3e-6, 2e-6), "float64": (1e-9, 1e-11), "complex64": (4e-6, 4e-6)}


def to_torch(value):
    """Return an argument of the reference as torch takes it."""
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.from_numpy(np.array(value))
    if isinstance(value, (list, tuple)):
        return [to_torch(item) for item in value]
    return value


def to_numpy(value):
    """Return an argument or a result of torch as the reference takes and gives it."""
    if isinstance(value, torch.Tensor):
        return value.detach().resolve_conj().resolve_neg().numpy().copy()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return tuple(map(to_numpy, value)) if isinstance(value, (list, tuple)) else value


def difference(got, wanted):
    """Say how results differ, or return None."""
    if isinstance(wanted, tuple):
        if not isinstance(got, tuple) or len(got) != len(wanted):
            return "another number of results"
        return next(filter(None, map(difference, got, wanted)), None)
    if got is None or wanted is None:
        return None if got is wanted else f"{got} instead of {wanted}"
    wanted = np.asarray(wanted)
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return f"{got.dtype}{got.shape} instead of {wanted.dtype}{wanted.shape}"
    relative, absolute = TOLERANCES.get(str(wanted.dtype), (1e-9, 1e-11))
    with np.errstate(all="ignore"):
        if wanted.dtype.kind in "fc":  # sums lose digits in proportion to what they are made of
            absolute *= np.abs(wanted).max(initial=1.0, where=np.isfinite(wanted))
        is_near = np.isclose(got, wanted, relative, absolute, equal_nan=True)
    return None if is_near.all() else f"{got[~is_near][:4]} instead of {wanted[~is_near][:4]}"


def agree(name, overload="default", **arguments):
    """Check that both give the same, or that both refuse."""
    operator = getattr(getattr(torch.ops.aten, name), overload)
    dtype = {"dtype": getattr(torch, arguments["dtype"])} if arguments.get("dtype") else {}
    try:
        wanted = to_numpy(operator(**{key: to_torch(value) for key, value in arguments.items()} | dtype))
    except (RuntimeError, IndexError, ValueError, NotImplementedError):
        wanted = None
    try:
        got = OPERATORS[name](**arguments)
    except ValueError as error:
        assert str(error).startswith(f"{name}: expected ")
        got = None
    shown = f"{name}.{overload}: " + ", ".join(f"{key}={brief(value)}" for key, value in arguments.items())
    if got is None or wanted is None:
        assert got is wanted, f"{shown}: {'the reference' if got is None else 'torch'} alone refuses"
    else:
        assert difference(got, wanted) is None, f"{shown}: {difference(got, wanted)}"


class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    """Checks every operator that torch calls while it is on, and counts those that agree."""

    def __init__(self):
        super().__init__()
        self.agreed = collections.Counter()
        self.differences = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        space, _, name = function._schema.name.partition("::")
        if name.endswith("_") and not name.endswith("__"):
            name = name[:-1]
        arguments = dict(zip((argument.name for argument in function._schema.arguments), args, strict=False))
        arguments = {key: to_numpy(value) for key, value in (arguments | (kwargs or {})).items()}
        result = function(*args, **(kwargs or {}))
        if space == "aten" and name in OPERATORS and "out" not in arguments:
            self.check(name, arguments, to_numpy(result))
        return result

    def check(self, name, arguments, wanted):
        """Compare one call."""
        try:
            problem = difference(OPERATORS[name](**arguments), wanted)
        except ValueError as error:
            problem = str(error)
        self.agreed[name] += problem is None
        if problem is not None:
            self.differences.append(f"{name}: {problem}")


# Random results, indices among equal numbers, places in memory outside the array, results for training alone.
# Under a dispatch mode, torch forgets that the argument of hfft is conjugated.
LEFT_OUT = re.compile(
    r"dropout|rrelu|rand|multinomial|bernoulli|geometric|cauchy|normal|uniform|exponential|empty|as_strided"
    r"|attention|embedding_bag|hfft|jiterator|sparse|svd|lstsq|topk|kthvalue|mode|masked|sort"
)


def op_db():
    """Return torch's own table of operators with samples. It imports a package that nothing here needs."""
    module = types.ModuleType("expecttest")
    module.TestCase, module.assert_expected_inline = unittest.TestCase, None
    sys.modules.setdefault("expecttest", module)
    from torch.testing._internal import common_methods_invocations

    return common_methods_invocations.op_db


def call_operators(recorder, dtypes, count, names=()):
    """Call every operator in torch's table, or those of these names, with its first samples of each dtype."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for operator in op_db():
        if LEFT_OUT.search(operator.name) or operator.aten_name not in OPERATORS:
            continue
        if names and operator.name not in names:
            continue
        for dtype in dtypes:
            if dtype in operator.dtypes:
                torch.manual_seed(0)
                samples = operator.sample_inputs("cpu", dtype, requires_grad=False)
                for sample in itertools.islice(samples, count):
                    with torch.inference_mode(), recorder:
                        operator(sample.input, *sample.args, **sample.kwargs)


def main():
    """Check the first samples of every operator in torch's table, and print how many calls agree."""
    recorder = Recorder()
    call_operators(recorder, (torch.float32, torch.int64, torch.bool, torch.complex64), 5)
    if recorder.differences:
        sys.exit("\n".join(recorder.differences[:20]))
    print(sum(recorder.agreed.values()))


if __name__ == "__main__":
    main()
