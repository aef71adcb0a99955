"""Products of vectors and matrices, and distances and angles between vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.narrow import NarrowWeight
from fastrnn.reference.narrow import make_product
from fastrnn.reference.operators.promotion import (
    axis_of,
    category,
    dtype_of,
    floating,
    result_type,
    wide,
    widened,
)


def _product(function: Callable[..., Any], *arrays: Array) -> Array:
    """Apply a function to arrays of one dtype. Its result is in that dtype."""
    dtype = arrays[0].dtype
    if any(array.dtype != dtype for array in arrays):
        raise TypeError("All must have one dtype.")
    if category(dtype) == 0:
        raise TypeError("It takes no bool.")
    return np.asarray(function(*(array.astype(wide(dtype)) for array in arrays))).astype(dtype)


def _check_axes(*pairs: tuple[Array, int]) -> None:
    """Every array must have its number of axes."""
    if any(array.ndim != axes for array, axes in pairs):
        raise ValueError(f"The numbers of axes must be {', '.join(str(axes) for _, axes in pairs)}.")


def _added(
    self: Array, product: Callable[..., Array], a: Array, b: Array, beta: complex, alpha: complex
) -> Array:
    """Return beta * self + alpha * product(a, b). With beta 0, self does not count, even if it is NaN."""
    if a.dtype != self.dtype or b.dtype != self.dtype:
        raise TypeError("All must have one dtype.")
    if category(self.dtype) == 1:  # torch cuts what follows the point
        beta, alpha = int(beta.real), int(alpha.real)
    result = product(a.astype(wide(a.dtype)), b.astype(wide(b.dtype)))
    if np.broadcast_shapes(self.shape, result.shape) != result.shape:
        raise ValueError(f"self must broadcast to {result.shape}.")
    if self.dtype == bool:
        return np.asarray((self & bool(beta)) | (result & bool(alpha)))
    result = alpha * result if beta == 0 else beta * self.astype(result.dtype) + alpha * result
    return np.asarray(result).astype(self.dtype)


# ---------------------------------------------------------------- of matrices and vectors


def matmul(self: Array, other: Array) -> Array:
    """Return the product of matrices, vectors, or stacks of matrices that broadcast."""
    return _product(np.matmul, self, other)


def mm(self: Array, mat2: Array) -> Array:
    """Return the product of two matrices."""
    _check_axes((self, 2), (mat2, 2))
    return matmul(self, mat2)


def bmm(self: Array, mat2: Array) -> Array:
    """Return the products of two stacks of matrices."""
    _check_axes((self, 3), (mat2, 3))
    if self.shape[0] != mat2.shape[0]:
        raise ValueError("Both stacks must have the same size.")
    return matmul(self, mat2)


def mv(self: Array, vec: Array) -> Array:
    """Return the product of a matrix and a vector."""
    _check_axes((self, 2), (vec, 1))
    return matmul(self, vec)


def dot(self: Array, tensor: Array) -> Array:
    """Return the sum of the products of two vectors."""
    _check_axes((self, 1), (tensor, 1))
    return matmul(self, tensor)


def vdot(self: Array, other: Array) -> Array:
    """Return the sum of the products of two vectors, the first of them conjugated."""
    return dot(self.conj(), other)


def outer(self: Array, vec2: Array) -> Array:
    """Return the products of all pairs of entries of two vectors."""
    _check_axes((self, 1), (vec2, 1))
    dtype = result_type(self, vec2)
    return np.asarray(np.multiply.outer(self.astype(dtype), vec2.astype(dtype)))


def inner(self: Array, other: Array) -> Array:
    """Return the sums of products over the last axes."""
    return _product(np.inner, self, other)


def linalg_vecdot(x: Array, y: Array, dim: int = -1) -> Array:
    """Return the sums of products over an axis, the first factor conjugated."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    axis = axis_of(dim, len(shape))
    return _product(lambda a, b: (a.conj() * b).sum(axis=axis), x, y)


def kron(self: Array, other: Array) -> Array:
    """Return blocks of other, one for each entry of self, times it."""
    dtype = result_type(self, other)
    return np.kron(self.astype(dtype), other.astype(dtype))


def tensordot(self: Array, other: Array, dims_self: Sequence[int], dims_other: Sequence[int]) -> Array:
    """Return the sums of products over pairs of axes."""
    axes = [axis_of(dim, self.ndim) for dim in dims_self], [axis_of(dim, other.ndim) for dim in dims_other]
    if len(axes[0]) != len(axes[1]):
        raise ValueError("There must be as many axes of one as of the other.")
    for a, b in zip(*axes, strict=True):  # a size of 1 broadcasts
        if self.shape[a] == 1 != other.shape[b]:
            other = other.sum(axis=b, keepdims=True, dtype=other.dtype)
        elif other.shape[b] == 1 != self.shape[a]:
            self = self.sum(axis=a, keepdims=True, dtype=self.dtype)
    return _product(lambda a, b: np.tensordot(a, b, axes), self, other)


def einsum(equation: str, tensors: Sequence[Array], path: Sequence[int] | None = None) -> Array:
    """Return sums of products, in Einstein's notation. Axes of "..." that a result lacks are summed."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    if "..." not in operands or "..." in result or not arrow:
        return _product(lambda *arrays: np.einsum(equation, *arrays), *tensors)
    every = _product(lambda *arrays: np.einsum(f"{operands}->...{result}", *arrays), *tensors)
    axes = tuple(range(every.ndim - len(result)))
    return _product(lambda array: array.sum(axis=axes), every)


def chain_matmul(matrices: Sequence[Array]) -> Array:
    """Return the product of matrices, one after the other. The first and last may be vectors."""
    if not matrices:
        raise ValueError("It takes at least one matrix.")

    def product(*arrays: Array) -> Array:
        result = arrays[0]
        for array in arrays[1:]:
            result = result @ array
        return result

    return _product(product, *matrices)


def linalg_multi_dot(tensors: Sequence[Array]) -> Array:
    """Return the product of matrices, one after the other. The first and last may be vectors."""
    if len(tensors) < 2:
        raise ValueError("It takes at least two matrices.")
    return chain_matmul(tensors)


# ---------------------------------------------------------------- products that are added


def addmm(self: Array, mat1: Array, mat2: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    """Return beta * self + alpha * the product of two matrices."""
    return _added(self, mm, mat1, mat2, beta, alpha)


def addmv(self: Array, mat: Array, vec: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    """Return beta * self + alpha * the product of a matrix and a vector."""
    return _added(self, mv, mat, vec, beta, alpha)


def addr(self: Array, vec1: Array, vec2: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    """Return beta * self + alpha * the products of all pairs of entries of two vectors."""
    dtype = result_type(self, vec1, vec2)
    if max(category(dtype_of(beta)), category(dtype_of(alpha))) > max(category(dtype), 1):
        raise TypeError("beta and alpha must be whole for integers.")
    return _added(self.astype(dtype), outer, vec1.astype(dtype), vec2.astype(dtype), beta, alpha)


def baddbmm(self: Array, batch1: Array, batch2: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    """Return beta * self + alpha * the products of two stacks of matrices."""
    return _added(self, bmm, batch1, batch2, beta, alpha)


def addbmm(self: Array, batch1: Array, batch2: Array, beta: complex = 1, alpha: complex = 1) -> Array:
    """Return beta * self + alpha * the sum of the products of two stacks of matrices."""
    return _added(self, lambda a, b: bmm(a, b).sum(axis=0), batch1, batch2, beta, alpha)


# ---------------------------------------------------------------- layers


def linear(input: Array, weight: Array | NarrowWeight, bias: Array | None = None) -> Array:
    """Return input @ weight.T + bias."""
    if weight.ndim not in (1, 2) or input.ndim == 0:
        raise ValueError("The weight must be a matrix or a vector, and the input have axes.")
    product = (*input.shape[:-1], *weight.shape[:-1])
    if isinstance(weight, NarrowWeight):
        start = np.broadcast_to(np.zeros(1) if bias is None else bias, product)
        rows = make_product(weight)(input.reshape(-1, weight.shape[1]), start.reshape(-1, weight.shape[0]))
        return rows.reshape(product).astype(input.dtype)
    if bias is None:
        return _product(lambda x, w: x @ w.T, input, weight)
    if np.broadcast_shapes(bias.shape, product) != product:
        raise ValueError(f"The bias must broadcast to {product}.")
    return _product(lambda x, w, b: x @ w.T + b, input, weight, bias)


def bilinear(input1: Array, input2: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return input1 @ weight[o] @ input2 + bias[o] for each output o."""
    if weight.ndim != 3 or input1.shape[:-1] != input2.shape[:-1]:
        raise ValueError("The weight must have three axes, and both inputs the same axes before the last.")
    shift = np.zeros(weight.shape[:1], weight.dtype) if bias is None else bias
    return _product(
        lambda x, y, w, b: np.einsum("...i,oij,...j->...o", x, w, y) + b, input1, input2, weight, shift
    )


# ---------------------------------------------------------------- distances and angles


def _distances(difference: Array, p: float, keepdim: bool = False) -> Array:
    """Return the p-norms over the last axis."""
    size = np.abs(difference)
    if p == 0:
        return np.asarray((size != 0).sum(axis=-1, keepdims=keepdim).astype(size.dtype))
    if p == math.inf:
        return np.asarray(size.max(axis=-1, keepdims=keepdim, initial=0))
    return np.asarray((size**p).sum(axis=-1, keepdims=keepdim) ** (1 / p))


def cdist(x1: Array, x2: Array, p: float = 2.0, compute_mode: int | None = None) -> Array:
    """Return the distances of all pairs of rows."""
    if min(x1.ndim, x2.ndim) < 2 or x1.shape[-1] != x2.shape[-1] or p < 0:
        raise ValueError("Both must have rows of one size, and p must be at least 0.")
    if category(x1.dtype) != 2:
        raise TypeError("It takes floats.")
    return _product(lambda a, b: _distances(a[..., :, None, :] - b[..., None, :, :], p), x1, x2)


def pairwise_distance(
    x1: Array, x2: Array, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Array:
    """Return the p-norms of x1 - x2 + eps over the last axis."""
    dtype = floating(result_type(x1, x2))
    result = _distances(widened(x1, dtype) - widened(x2, dtype) + eps, p, keepdim)
    return result.astype(np.zeros(0, dtype).real.dtype)


def cosine_similarity(x1: Array, x2: Array, dim: int = 1, eps: float = 1e-8) -> Array:
    """Return the cosines of the angles between vectors along an axis. Norms are at least eps."""
    dtype = result_type(x1, x2)
    if category(dtype) != 2:
        raise TypeError("It takes floats.")
    axis = axis_of(dim, max(x1.ndim, x2.ndim))
    a, b = (np.atleast_1d(array) for array in np.broadcast_arrays(widened(x1, dtype), widened(x2, dtype)))
    norms = [np.maximum(np.sqrt((x**2).sum(axis=axis, keepdims=True)), eps) for x in (a, b)]
    return np.asarray((a / norms[0] * (b / norms[1])).sum(axis=axis)).astype(dtype)


def normalize(input: Array, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12) -> Array:
    """Divide by p-norms along axes, which are at least eps. Of torch.nn.functional."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    axes = [axis_of(d, input.ndim) for d in dims]
    x = widened(np.atleast_1d(input), input.dtype)
    rows = np.moveaxis(x, axes, range(-len(axes), 0))
    norms = _distances(rows.reshape(*rows.shape[: rows.ndim - len(axes)], -1), p)
    result = x / np.maximum(np.expand_dims(norms, tuple(axes)), eps)
    return np.asarray(result.reshape(input.shape)).astype(input.dtype)


ALIASES = {
    "_cdist_forward": "cdist",
    "ger": "outer",
    "linalg_matmul": "matmul",
}
