"""Fourier transforms of whole axes, and of frames of signals.

Definitions: https://docs.pytorch.org/docs/stable/fft.html and
https://docs.pytorch.org/docs/stable/generated/torch.stft.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from fastrnn.arrays import Array
from fastrnn.reference.operators.complex_numbers import view_as_real
from fastrnn.reference.operators.padding import pad
from fastrnn.reference.operators.promotion import (
    DType,
    axis_of,
    category,
    floating,
    wide,
    widened,
)

Sizes: TypeAlias = Sequence[int]
_Norm: TypeAlias = Literal["backward", "ortho", "forward"]


def _norm(norm: str | None) -> _Norm:
    if norm not in (None, "backward", "ortho", "forward"):
        raise ValueError("norm must be backward, ortho or forward.")
    return cast(_Norm, norm or "backward")


def _complex_dtype(dtype: DType) -> DType:
    return np.result_type(floating(dtype), np.complex64)


def _real_dtype(dtype: DType) -> DType:
    return np.zeros(0, floating(dtype)).real.dtype


# ---------------------------------------------------------------- one axis


def _check_line(self: Array, n: int | None, dim: int) -> int:
    """Return the axis that is transformed. It has at least one entry."""
    axis = axis_of(dim, self.ndim)
    if self.ndim == 0:
        raise ValueError("It takes an array with axes.")
    if (self.shape[axis] if n is None else n) < 1:
        raise ValueError("It takes at least one entry.")
    return axis


def fft_fft(self: Array, n: int | None = None, dim: int = -1, norm: str | None = None) -> Array:
    """Return the transform of an axis, which is cut or extended by zeros to n."""
    axis, kind = _check_line(self, n, dim), _norm(norm)
    x = widened(self, floating(self.dtype))
    return np.fft.fft(x, n, axis, kind).astype(_complex_dtype(self.dtype))


def fft_ifft(self: Array, n: int | None = None, dim: int = -1, norm: str | None = None) -> Array:
    """Return the inverse transform of an axis."""
    axis, kind = _check_line(self, n, dim), _norm(norm)
    x = widened(self, floating(self.dtype))
    return np.fft.ifft(x, n, axis, kind).astype(_complex_dtype(self.dtype))


def fft_rfft(self: Array, n: int | None = None, dim: int = -1, norm: str | None = None) -> Array:
    """Return the transform of an axis of real numbers, without the half that mirrors the other."""
    if category(self.dtype) == 3:
        raise TypeError("It takes no complex numbers.")
    axis, kind = _check_line(self, n, dim), _norm(norm)
    x = widened(self, floating(self.dtype))
    return np.fft.rfft(x, n, axis, kind).astype(_complex_dtype(self.dtype))


def fft_irfft(self: Array, n: int | None = None, dim: int = -1, norm: str | None = None) -> Array:
    """Return the n real numbers whose transform begins with self: 2 * (size - 1) without n."""
    axis = axis_of(dim, self.ndim)
    n = 2 * (self.shape[axis] - 1) if n is None and self.ndim else n
    _check_line(self, n, dim)
    x = widened(self, floating(self.dtype))
    return np.fft.irfft(x, n, axis, _norm(norm)).astype(_real_dtype(self.dtype))


def fft_hfft(self: Array, n: int | None = None, dim: int = -1, norm: str | None = None) -> Array:
    """Return the n real numbers that are the transform of a signal whose first half is self."""
    opposite = {"backward": "forward", "ortho": "ortho", "forward": "backward"}[_norm(norm)]
    return fft_irfft(np.conj(self), n, dim, opposite)


def fft_ihfft(self: Array, n: int | None = None, dim: int = -1, norm: str | None = None) -> Array:
    """Return the first half of the inverse transform of an axis of real numbers."""
    opposite = {"backward": "forward", "ortho": "ortho", "forward": "backward"}[_norm(norm)]
    return fft_rfft(self, n, dim, opposite).conj()


# ---------------------------------------------------------------- several axes


def _grid(self: Array, s: Sizes | None, dim: int | Sizes | None) -> tuple[list[int | None], list[int]]:
    """Return the size and the axis of each transform. A size of -1 keeps that of self."""
    if dim is not None:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
    elif s is not None:
        dims = tuple(range(-len(s), 0))
    else:
        dims = tuple(range(self.ndim))
    axes = [axis_of(d, self.ndim) for d in dims]
    if len(set(axes)) != len(axes):
        raise ValueError("An axis is named twice.")
    if s is not None and len(s) != len(axes):
        raise ValueError("There must be a size for each axis.")
    return [None] * len(axes) if s is None else [None if n == -1 else n for n in s], axes


def _each_axis(function: Callable[..., Array], self: Array, s: Any, dim: Any, norm: str | None) -> Array:
    """Transform axes one after the other."""
    result = self.astype(_complex_dtype(self.dtype)).astype(np.complex128)
    for n, axis in zip(*_grid(self, s, dim), strict=True):
        result = function(result, n, axis, norm)
    return result.astype(_complex_dtype(self.dtype))


def fft_fftn(
    self: Array, s: Sizes | None = None, dim: int | Sizes | None = None, norm: str | None = None
) -> Array:
    """Return the transform of axes: all, the last ones that have sizes, or those of dim."""
    return _each_axis(fft_fft, self, s, dim, norm)


def fft_ifftn(
    self: Array, s: Sizes | None = None, dim: int | Sizes | None = None, norm: str | None = None
) -> Array:
    """Return the inverse transform of axes."""
    return _each_axis(fft_ifft, self, s, dim, norm)


def fft_rfftn(
    self: Array, s: Sizes | None = None, dim: int | Sizes | None = None, norm: str | None = None
) -> Array:
    """Return the transform of axes of real numbers, without a half of the last one."""
    if category(self.dtype) == 3:
        raise TypeError("It takes no complex numbers.")
    sizes, axes = _grid(self, s, dim)
    if not axes:
        raise ValueError("It takes at least one axis.")
    result = fft_rfft(widened(self, floating(self.dtype)), sizes[-1], axes[-1], norm)
    for n, axis in zip(sizes[:-1], axes[:-1], strict=True):
        result = fft_fft(result, n, axis, norm)
    return result.astype(_complex_dtype(self.dtype))


def fft_irfftn(
    self: Array, s: Sizes | None = None, dim: int | Sizes | None = None, norm: str | None = None
) -> Array:
    """Return the real numbers whose transform has self as its first half."""
    sizes, axes = _grid(self, s, dim)
    if not axes:
        raise ValueError("It takes at least one axis.")
    result = self.astype(_complex_dtype(self.dtype)).astype(np.complex128)
    for n, axis in zip(sizes[:-1], axes[:-1], strict=True):
        result = fft_ifft(result, n, axis, norm)
    last = sizes[-1] if s is None or s[-1] != -1 else 2 * (self.shape[axes[-1]] - 1)
    return fft_irfft(result, last, axes[-1], norm).astype(_real_dtype(self.dtype))


def fft_fft2(
    self: Array, s: Sizes | None = None, dim: int | Sizes = (-2, -1), norm: str | None = None
) -> Array:
    """Return the transform of two axes."""
    return fft_fftn(self, s, dim, norm)


def fft_ifft2(
    self: Array, s: Sizes | None = None, dim: int | Sizes = (-2, -1), norm: str | None = None
) -> Array:
    """Return the inverse transform of two axes."""
    return fft_ifftn(self, s, dim, norm)


def fft_rfft2(
    self: Array, s: Sizes | None = None, dim: int | Sizes = (-2, -1), norm: str | None = None
) -> Array:
    """Return the transform of two axes of real numbers, without a half of the last one."""
    return fft_rfftn(self, s, dim, norm)


def fft_irfft2(
    self: Array, s: Sizes | None = None, dim: int | Sizes = (-2, -1), norm: str | None = None
) -> Array:
    """Return the real numbers whose transform of two axes has self as its first half."""
    return fft_irfftn(self, s, dim, norm)


def _shift_axes(self: Array, dim: int | Sizes | None) -> Any:
    if dim is None:
        return tuple(range(self.ndim))
    return tuple(axis_of(d, self.ndim) for d in ((dim,) if isinstance(dim, int) else dim))


def fft_fftshift(self: Array, dim: int | Sizes | None = None) -> Array:
    """Move the frequency 0 from the front of axes to their middle."""
    return np.fft.fftshift(self, _shift_axes(self, dim))


def fft_ifftshift(self: Array, dim: int | Sizes | None = None) -> Array:
    """Move the frequency 0 from the middle of axes to their front."""
    return np.fft.ifftshift(self, _shift_axes(self, dim))


def fft_fftfreq(n: int, d: float = 1.0, dtype: str | None = None) -> Array:
    """Return the frequencies of a transform of n numbers at distance d."""
    return np.fft.fftfreq(n, d).astype(dtype or "float32")


def fft_rfftfreq(n: int, d: float = 1.0, dtype: str | None = None) -> Array:
    """Return the frequencies of the half of a transform that rfft gives."""
    return np.fft.rfftfreq(n, d).astype(dtype or "float32")


# ---------------------------------------------------------------- the forms without sizes


def _scaled(array: Array, count: int, normalization: int) -> Array:
    """Divide by 1, the root of the number of entries, or the number: what 0, 1 and 2 stand for."""
    return np.asarray(array / (1, np.sqrt(count), count)[normalization])


def _fft_r2c(self: Array, dim: Sizes, normalization: int, onesided: bool) -> Array:
    """Return the transform of axes of real numbers, one half or both halves of the last one."""
    axes = [axis_of(d, self.ndim) for d in dim]
    count = int(np.prod([self.shape[axis] for axis in axes]))
    transform = np.fft.rfftn if onesided else np.fft.fftn
    result = transform(widened(self, floating(self.dtype)), axes=axes)
    return _scaled(result, count, normalization).astype(_complex_dtype(self.dtype))


def _fft_c2r(self: Array, dim: Sizes, normalization: int, last_dim_size: int) -> Array:
    """Return the real numbers, last_dim_size on the last of the axes, whose transform has self as a half."""
    axes = [axis_of(d, self.ndim) for d in dim]
    sizes = [*(self.shape[axis] for axis in axes[:-1]), last_dim_size]
    result = np.fft.irfftn(widened(self, self.dtype), sizes, axes, "forward")
    return _scaled(result, int(np.prod(sizes)), normalization).astype(_real_dtype(self.dtype))


def _fft_c2c(self: Array, dim: Sizes, normalization: int, forward: bool) -> Array:
    """Return the transform of axes, or the inverse one."""
    axes = [axis_of(d, self.ndim) for d in dim]
    count = int(np.prod([self.shape[axis] for axis in axes]))
    x = widened(self, self.dtype)
    result = np.fft.fftn(x, axes=axes) if forward else np.fft.ifftn(x, axes=axes, norm="forward")
    return _scaled(result, count, normalization).astype(self.dtype)


# ---------------------------------------------------------------- frames


def _frames_window(
    dtype: DType, n_fft: int, hop_length: int | None, win_length: int | None, window: Array | None
) -> tuple[int, Array]:
    """Return the distance of frames, and the window with zeros around it."""
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if n_fft < 1 or hop < 1 or not 0 < width <= n_fft:
        raise ValueError("n_fft and hop_length must be at least 1, win_length at most n_fft.")
    if window is not None and window.shape != (width,):
        raise ValueError(f"The window must have the shape {(width,)}.")
    shape = np.ones(width) if window is None else window.astype(wide(window.dtype))
    before = (n_fft - width) // 2
    return hop, np.pad(shape, (before, n_fft - width - before))


def stft(
    self: Array,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Array | None = None,
    center: bool = False,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Array:
    """Return the transforms of frames: (..., samples) to (..., frequencies, frames).

    With `center`, frame t is around sample t * hop_length. Without return_complex, real and imaginary parts
    are on a last axis.
    """
    if category(self.dtype) < 2 or self.ndim not in (1, 2):
        raise ValueError("It takes floats or complex numbers, with one axis or two.")
    hop, shape = _frames_window(self.dtype, n_fft, hop_length, win_length, window)
    is_complex = category(self.dtype) == 3 or np.iscomplexobj(shape)
    if onesided and is_complex:
        raise ValueError("Transforms of complex numbers have two sides.")
    if return_complex is None and not is_complex:
        raise ValueError("return_complex must be given.")
    if align_to_window is not None and center:
        raise ValueError("align_to_window is for frames that are not centred.")
    x = self[None] if self.ndim == 1 else self
    if center:
        x = pad(x[None], (n_fft // 2, n_fft // 2), pad_mode)[0]
    width = n_fft if win_length is None else win_length
    if align_to_window:
        x = pad(x, (((n_fft - width) // 2,) * 2), "constant")
    if x.shape[1] < n_fft:
        raise ValueError("The signal is shorter than a frame.")
    starts = np.arange(0, x.shape[1] - n_fft + 1, hop)
    frames = x.astype(wide(x.dtype))[:, starts[:, None] + np.arange(n_fft)] * shape
    is_half = not is_complex if onesided is None else onesided
    spectrum = np.fft.rfft(frames) if is_half else np.fft.fft(frames)
    spectrum = spectrum.swapaxes(1, 2) / (np.sqrt(n_fft) if normalized else 1)
    result = spectrum.astype(_complex_dtype(self.dtype)).reshape(*self.shape[:-1], *spectrum.shape[1:])
    return result if return_complex or return_complex is None else view_as_real(result)


def istft(
    self: Array,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Array | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Array:
    """Return the signal from its frames: their sum where they overlap, divided by that of squared windows."""
    if category(self.dtype) != 3 or self.ndim not in (2, 3) or not self.size:
        raise ValueError("It takes complex numbers (..., frequencies, frames), and at least one.")
    hop, shape = _frames_window(self.dtype, n_fft, hop_length, win_length, window)
    width = n_fft if win_length is None else win_length
    if hop > width:
        raise ValueError("hop_length may be at most win_length.")
    x = widened(self[None] if self.ndim == 2 else self, self.dtype).swapaxes(1, 2)
    is_half = x.shape[2] != n_fft if onesided is None else onesided
    if x.shape[2] != (n_fft // 2 + 1 if is_half else n_fft):
        raise ValueError("The number of frequencies must be that of n_fft.")
    if (return_complex and is_half) or (np.iscomplexobj(shape) and not return_complex):
        raise ValueError("A complex signal needs both sides, and return_complex.")
    frames = np.fft.ifft(x) if return_complex else np.fft.irfft(x[..., : n_fft // 2 + 1], n_fft)
    frames = frames * shape * (np.sqrt(n_fft) if normalized else 1)
    count, total = frames.shape[1], n_fft + hop * (frames.shape[1] - 1)
    signal, weights = np.zeros((len(frames), total), frames.dtype), np.zeros(total, shape.dtype)
    for t in range(count):
        signal[:, t * hop : t * hop + n_fft] += frames[:, t]
        weights[t * hop : t * hop + n_fft] += shape**2
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else total - start
    kept = weights[start : min(end, total)]
    if not kept.size or np.abs(kept).min() < 1e-11:
        raise ValueError("The windows leave some samples out.")
    result = np.zeros((len(frames), max(end - start, 0)), frames.dtype)
    result[:, : kept.size] = signal[:, start : min(end, total)] / kept
    dtype = self.dtype if return_complex else _real_dtype(self.dtype)
    return result.astype(dtype).reshape(*self.shape[:-2], -1)


ALIASES = {
    "_fft_c2c": "_fft_c2c",
    "_fft_c2r": "_fft_c2r",
    "_fft_r2c": "_fft_r2c",
}
