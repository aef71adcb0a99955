"""The parts of complex numbers."""

from __future__ import annotations

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.promotion import category, widened


def view_as_real(self: Array) -> Array:
    """Return real and imaginary parts on a new last axis."""
    if category(self.dtype) != 3:
        raise TypeError("It takes complex numbers.")
    return np.stack([self.real, self.imag], -1)


def view_as_complex(self: Array) -> Array:
    """Return complex numbers, from real and imaginary parts on the last axis."""
    if category(self.dtype) != 2 or self.shape[-1:] != (2,):
        raise TypeError("It takes floats, two on the last axis.")
    return complex(self[..., 0], self[..., 1])


def real(self: Array) -> Array:
    """Return real parts."""
    return self.real


def imag(self: Array) -> Array:
    """Return imaginary parts."""
    if category(self.dtype) != 3:
        raise TypeError("It takes complex numbers.")
    return self.imag


def complex(real: Array, imag: Array) -> Array:
    """Return complex numbers from their parts."""
    if category(real.dtype) != 2 or real.dtype != imag.dtype:
        raise TypeError("It takes floats of one dtype.")
    shape = np.broadcast_shapes(real.shape, imag.shape)
    result = np.zeros(shape, np.result_type(real.dtype, np.complex64))
    result.real, result.imag = real, imag
    return result


def polar(abs: Array, angle: Array) -> Array:
    """Return complex numbers from absolute values and angles."""
    a, b = widened(abs, abs.dtype), widened(angle, angle.dtype)
    if category(abs.dtype) != 2 or abs.dtype != angle.dtype:
        raise TypeError("It takes floats of one dtype.")
    return complex(np.asarray(a * np.cos(b)).astype(abs.dtype), np.asarray(a * np.sin(b)).astype(abs.dtype))


def conj(self: Array) -> Array:
    """Return the conjugates of complex numbers, and others as they are."""
    return self.conj() if category(self.dtype) == 3 else self


def resolve_conj(self: Array) -> Array:
    """Return self. Here no array is conjugated or negated only when it is read."""
    return self


ALIASES = {
    "_conj": "conj",
    "_conj_physical": "conj",
    "conj_physical": "conj",
    "resolve_neg": "resolve_conj",
    "view_as_complex_copy": "view_as_complex",
    "view_as_real_copy": "view_as_real",
}
