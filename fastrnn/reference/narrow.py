"""The products of narrow weights in NumPy, which those of kernels are tested against.

What they are multiplied with, x or h, is rounded too. Sums are float32.

bfloat16
    Operands are rounded to the nearest bfloat16. The sums are those of AMX's TDPBF16PS: for each 32 columns,
    one chain of fused multiply-adds over the even ones and one over the odd ones, each from 0. The sum of the
    two is added to what there is. Denormal numbers count as zeros, in operands and in results.
    Source: https://www.intel.com/content/www/us/en/docs/intrinsics-guide (_tile_dpbf16ps)
int8
    Operands are quantised row by row, as weights are. Products are whole numbers, and so are their sums.
    These are multiplied by both scales and added to what there is, in one rounding.

Rounding and quantising themselves are defined in `fastrnn.narrow`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.narrow import NarrowWeight, quantise_by, round_to_bfloat16

if TYPE_CHECKING:
    from numpy.typing import NDArray

# From x, start and the least magnitude that becomes 127 to start + x W^T.
Product: TypeAlias = "Callable[..., NDArray[np.float32]]"

GROUP = 32  # columns of bfloat16 whose products are summed apart
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
# Results below it are denormal once they are rounded to 24 bits.
SMALLEST_ROUNDED = SMALLEST_NORMAL * (1 - 2.0**-25)


def make_product(weight: Array | NarrowWeight, in_order: bool = False) -> Product:
    """Return the function (x, start, least) to start + x W^T in float32.

    It takes x (n, K), start (rows,) or (n, rows), and the least magnitude that becomes 127 when a row of x is
    quantised.

    Parameters
    ----------
    weight : NarrowWeight or array (rows, K)
        Wide weights of a layer with narrow ones beside them are multiplied in float64, and rounded once.
    in_order : bool
        Sum products of bfloat16 in the order of AMX, which gives its bits. This takes long. If not, they are
        summed in float64 and rounded once, which differs by roundings of float32.
    """
    if isinstance(weight, NarrowWeight) and weight.scales is not None:
        numbers, scales = weight.data.astype(np.float64).T, weight.scales
        add = partial(_add_int8, numbers, scales)
    elif isinstance(weight, NarrowWeight):
        wide = flushed(np.asarray(weight)).astype(np.float64)
        add = partial(_add_bfloat16, wide, in_order)
    else:
        add = partial(_add_wide, np.asarray(weight, np.float64))

    def product(x: Array, start: Array, least: float = 0.0) -> NDArray[np.float32]:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return add(np.asarray(x, np.float32), np.asarray(start, np.float32), np.float32(least))

    return product


def _add_wide(weight: Array, x: Array, start: Array, least: np.float32) -> NDArray[np.float32]:
    return (start + x.astype(np.float64) @ weight.T).astype(np.float32)


def _add_bfloat16(
    weight: Array, in_order: bool, x: Array, start: Array, least: np.float32
) -> NDArray[np.float32]:
    x = flushed(round_to_bfloat16(flushed(x)))
    if not in_order:
        return _add_wide(weight, x, start, least)
    starts = np.broadcast_to(start, (len(x), len(weight)))
    return np.stack([_add_in_order(weight, row, first) for row, first in zip(x, starts, strict=True)])


def _add_in_order(weight: Array, x: Array, start: Array) -> Array:
    """Return start + W x for one row of operands, with sums in the order of AMX."""
    rows, columns = weight.shape
    groups = -(-columns // GROUP)
    products = np.zeros((rows, groups * GROUP))
    products[:, :columns] = weight * x.astype(np.float64)  # exact
    pairs = products.reshape(rows, groups, GROUP // 2, 2)
    chains = np.zeros((rows, groups, 2), np.float32)
    for k in range(GROUP // 2):
        chains = _rounded_sum(pairs[:, :, k], chains)
    both = flushed(chains[..., 0] + chains[..., 1])
    total = flushed(start)
    for group in range(groups):
        total = flushed(total + both[:, group])
    return total


def _add_int8(
    numbers: Array, scales: Array, x: Array, start: Array, least: np.float32
) -> NDArray[np.float32]:
    largest = np.maximum(np.abs(x).max(axis=1, initial=0), least)
    quantised, own_scales = quantise_by(x, largest)
    sums = (quantised.astype(np.float64) @ numbers).astype(np.float32)
    total = fma(sums, flushed(own_scales[:, None] * scales), np.broadcast_to(start, sums.shape))
    total[~np.isfinite(largest)] = np.nan
    return total


# ---------------------------------------------------------------- float32 arithmetic


def flushed(x: Array) -> Array:
    """Return float32 numbers with zeros for denormal ones."""
    result: Array = np.where(np.abs(x) < np.float32(SMALLEST_NORMAL), np.copysign(np.float32(0), x), x)
    return result


def fma(a: Array, b: Array, c: Array) -> NDArray[np.float32]:
    """Return a * b + c of float32 arrays, rounded once. Denormal results are zeros."""
    return _rounded_sum(a.astype(np.float64) * b.astype(np.float64), c)


def _rounded_sum(product: NDArray[np.float64], addend: Array) -> NDArray[np.float32]:
    """Return the sum of exact products and float32 numbers, rounded once to float32.

    The sum in float64 is rounded to odd: of the two neighbours of the exact sum, the one whose last bit is 1.
    Rounding that to float32 is as if the exact sum were rounded.
    Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
    rounding to odd", IEEE Transactions on Computers 57 (2008)
    """
    wide = addend.astype(np.float64)
    total = np.asarray(product + wide)
    part = total - product
    error = (product - (total - part)) + (wide - part)  # of the sum; exact
    bits = total.view(np.int64)
    is_even = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
    bits += np.where(is_even, np.where((error > 0) == (total > 0), 1, -1), 0)
    tiny = np.abs(total) < SMALLEST_ROUNDED
    return np.where(tiny, np.copysign(np.float32(0), total), total).astype(np.float32)
