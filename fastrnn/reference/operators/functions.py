"""Functions of one number: powers, logarithms, trigonometry, rounding, special functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import (
    Operand,
    category,
    compute,
    compute_floating,
    dtype_of,
    floating,
    real,
    widened,
)


def _check_real(self: Operand) -> None:
    if category(dtype_of(self)) == 3:
        raise TypeError("It takes no complex numbers.")


def _floating(function: Callable[[Any], Any], is_real: bool = False) -> Callable[[Operand], Array]:
    """Return the operator of a function with results in floats, for integers too."""

    def operator(self: Operand) -> Array:
        if is_real:
            _check_real(self)
        return compute_floating(function, self)

    return operator


def _check_numbers(self: Operand) -> None:
    if category(dtype_of(self)) not in (1, 2):
        raise TypeError("It takes integers and floats.")


def _rounding(function: Callable[[Any], Any]) -> Callable[[Operand], Array]:
    """Return the operator of a function that leaves integers as they are."""

    def operator(self: Operand) -> Array:
        _check_numbers(self)
        return compute(function, self) if category(dtype_of(self)) == 2 else np.array(self)

    return operator


def _sigmoid(x: Any) -> Any:
    small = np.exp(np.where(x.real >= 0, -x, x))
    return np.where(x.real >= 0, 1, small) / (1 + small)


def _exp2(x: Any) -> Any:
    return np.exp2(x) if np.isrealobj(x) else np.exp(x * np.log(2))


exp = _floating(np.exp)
exp2 = _floating(_exp2)
expm1 = _floating(np.expm1)
log = _floating(np.log)
log2 = _floating(np.log2)
log10 = _floating(np.log10)
log1p = _floating(np.log1p)
sqrt = _floating(np.sqrt)
rsqrt = _floating(lambda x: 1 / np.sqrt(x))
reciprocal = _floating(lambda x: 1 / x)
sigmoid = _floating(_sigmoid)

sin = _floating(np.sin)
cos = _floating(np.cos)
tan = _floating(np.tan)
asin = _floating(np.arcsin)
acos = _floating(np.arccos)
atan = _floating(np.arctan)
sinh = _floating(np.sinh)
cosh = _floating(np.cosh)
tanh = _floating(np.tanh)
asinh = _floating(np.arcsinh)
acosh = _floating(np.arccosh)
atanh = _floating(np.arctanh)
deg2rad = _floating(lambda x: x * (np.pi / 180), is_real=True)
rad2deg = _floating(lambda x: x * (180 / np.pi), is_real=True)
sinc = _floating(np.sinc)

erf = _floating(special.erf, is_real=True)
erfc = _floating(special.erfc, is_real=True)
erfinv = _floating(special.erfinv, is_real=True)
lgamma = _floating(lambda x: np.where(np.isinf(x), np.inf, special.gammaln(x)), is_real=True)

floor = _rounding(np.floor)
ceil = _rounding(np.ceil)
trunc = _rounding(np.trunc)


def abs(self: Operand) -> Array:
    """Return absolute values. Those of complex numbers are real."""
    dtype = dtype_of(self)
    if category(dtype) == 0:
        raise TypeError("It takes no bool.")
    return np.asarray(np.abs(widened(self, dtype))).astype(real(dtype))


def neg(self: Operand) -> Array:
    """Return -self."""
    if category(dtype_of(self)) == 0:
        raise TypeError("It takes no bool. Use logical_not.")
    return compute(np.negative, self)


def positive(self: Operand) -> Array:
    """Return self."""
    if category(dtype_of(self)) == 0:
        raise TypeError("It takes no bool.")
    return np.asarray(self)


def sign(self: Operand) -> Array:
    """Return -1, 0 or 1. That of NaN is 0."""
    if category(dtype_of(self)) == 3:
        raise TypeError("It takes no complex numbers. Use sgn.")
    array = np.asarray(self)
    return array if array.dtype == bool else (1 * (array > 0) - 1 * (array < 0)).astype(array.dtype)


def sgn(self: Operand) -> Array:
    """Return self / abs(self), and 0 for 0."""
    if category(dtype_of(self)) < 3:
        return sign(self)
    return compute(lambda x: np.where(x == 0, 0, x / np.where(x == 0, 1, np.abs(x))), self)


def square(self: Operand) -> Array:
    """Return self * self. Bools are integers to it."""
    return compute(lambda x, one: x * x * one, self, 1)


def round(self: Operand, decimals: int = 0) -> Array:
    """Round half to even. With decimals, the scaled number is rounded to self's dtype first."""
    _check_numbers(self)
    dtype = dtype_of(self)
    if category(dtype) < 2:
        return np.asarray(self)
    array, scale = np.asarray(self), dtype.type(10.0 ** np.abs(decimals))
    result: Array = np.rint(array / scale) * scale if decimals < 0 else np.rint(array * scale) / scale
    return result if decimals else np.rint(array)


def frac(self: Operand) -> Array:
    """Return what follows the point, with the sign of self."""
    if category(dtype_of(self)) != 2:
        raise TypeError("It takes floats.")
    return compute(lambda x: x - np.trunc(x), self)


def logit(self: Operand, eps: float | None = None) -> Array:
    """Return log(x / (1 - x)), of x in [eps, 1 - eps] if there is an eps."""
    _check_real(self)
    return compute_floating(
        lambda x: (lambda p: np.log(p / (1 - p)))(x if eps is None else np.clip(x, eps, 1 - eps)), self
    )


def nan_to_num(
    self: Operand, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Array:
    """Replace NaN by 0, infinities by the largest floats, or by the numbers that are given."""
    array = np.asarray(self)
    if category(array.dtype) < 2:
        return array
    limits = np.finfo(array.dtype)
    result: Array = np.nan_to_num(
        array,
        nan=0.0 if nan is None else nan,
        posinf=float(limits.max) if posinf is None else posinf,
        neginf=float(limits.min) if neginf is None else neginf,
    )
    return result


def signbit(self: Operand) -> Array:
    """Whether the sign is negative. That of -0.0 is."""
    _check_real(self)
    array = np.asarray(self)
    result: Array = np.signbit(array) if category(array.dtype) == 2 else array < 0
    return result


def angle(self: Operand) -> Array:
    """Return the angle of complex numbers; of others 0 or pi, and NaN of NaN."""
    dtype = floating(dtype_of(self))
    x = widened(self, dtype)
    result = np.angle(x) if np.iscomplexobj(x) else np.where(np.isnan(x), np.nan, np.where(x < 0, np.pi, 0))
    return np.asarray(result).astype(real(dtype))


ALIASES = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctanh": "atanh",
    "fix": "trunc",
    "negative": "neg",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_erfinv": "erfinv",
    "special_exp2": "exp2",
    "special_expit": "sigmoid",
    "special_expm1": "expm1",
    "special_gammaln": "lgamma",
    "special_log1p": "log1p",
    "special_logit": "logit",
    "special_round": "round",
    "special_sinc": "sinc",
}
