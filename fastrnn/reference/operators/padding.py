"""Edges that are added or cut off, and pixels and channels in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrnn.arrays import Array

Sizes = Sequence[int]


def _widths(self: Array, pad: Sizes) -> list[tuple[int, int]]:
    """Return what is added before and after each axis. `pad` begins with the last axis."""
    if len(pad) % 2 or len(pad) > 2 * self.ndim:
        raise ValueError("It takes two widths for each of the last axes.")
    pairs = [(before, after) for before, after in zip(pad[::2], pad[1::2], strict=True)]
    widths = [(0, 0)] * (self.ndim - len(pairs)) + pairs[::-1]
    if any(size + before + after < 0 for size, (before, after) in zip(self.shape, widths, strict=True)):
        raise ValueError("More is cut off than there is.")
    return widths


def constant_pad_nd(self: Array, pad: Sizes, value: complex = 0) -> Array:
    """Add edges of one value. Negative widths cut edges off."""
    widths = _widths(self, pad)
    result = np.full(
        [size + before + after for size, (before, after) in zip(self.shape, widths, strict=True)],
        np.asarray(value).astype(self.dtype),
    )
    inside = tuple(
        slice(max(before, 0), max(before, 0) + max(size + min(before, 0) + min(after, 0), 0))
        for size, (before, after) in zip(self.shape, widths, strict=True)
    )
    kept = tuple(
        slice(max(-before, 0), max(size - max(-after, 0), max(-before, 0)))
        for size, (before, after) in zip(self.shape, widths, strict=True)
    )
    result[inside] = self[kept]
    return result


def _pad_by_index(self: Array, pad: Sizes, mode: str) -> Array:
    """Add edges of the array's own entries: `mode` says where each comes from."""
    result = self
    for axis, (before, after) in enumerate(_widths(self, pad)):
        if not before and not after:
            continue
        size = self.shape[axis]
        most = {"reflect": size - 1, "circular": size}.get(mode, max(before, after))
        is_empty = size + before + after < 1 and mode != "circular"
        if max(before, after) > most or is_empty:
            raise ValueError(f"An edge of mode {mode} may be at most {most} wide here.")
        places = np.arange(-before, size + after)
        if mode == "reflect":
            places = np.abs(places)
            places = size - 1 - np.abs(size - 1 - places)
        elif mode == "replicate":
            places = np.clip(places, 0, size - 1)
        else:
            first, last = max(-before, 0), size + min(after, 0)  # what is cut off does not come back
            places = first + (places - first) % (last - first)
        result = np.take(result, places, axis)
    return result


def pad(self: Array, pad: Sizes, mode: str = "constant", value: float | None = None) -> Array:
    """Add edges: constant, or with entries of the array (reflect, replicate, circular)."""
    if mode == "constant":
        return constant_pad_nd(self, pad, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError("mode must be constant, reflect, replicate or circular.")
    axes = len(pad) // 2
    if axes > 3 or self.ndim not in (axes + 1, axes + 2) or value:
        raise ValueError(f"Mode {mode} takes widths for all axes after channels, and no value.")
    return _pad_by_index(self, pad, mode)


def _fixed(self: Array, padding: Sizes, axes: int, mode: str) -> Array:
    if len(padding) != 2 * axes:
        raise ValueError(f"It takes {2 * axes} widths.")
    return pad(self, padding, mode)


def reflection_pad1d(self: Array, padding: Sizes) -> Array:
    """Mirror at the edges of the last axis."""
    return _fixed(self, padding, 1, "reflect")


def reflection_pad2d(self: Array, padding: Sizes) -> Array:
    """Mirror at the edges of the last two axes."""
    return _fixed(self, padding, 2, "reflect")


def reflection_pad3d(self: Array, padding: Sizes) -> Array:
    """Mirror at the edges of the last three axes."""
    return _fixed(self, padding, 3, "reflect")


def replication_pad1d(self: Array, padding: Sizes) -> Array:
    """Repeat the edges of the last axis."""
    return _fixed(self, padding, 1, "replicate")


def replication_pad2d(self: Array, padding: Sizes) -> Array:
    """Repeat the edges of the last two axes."""
    return _fixed(self, padding, 2, "replicate")


def replication_pad3d(self: Array, padding: Sizes) -> Array:
    """Repeat the edges of the last three axes."""
    return _fixed(self, padding, 3, "replicate")


def _pad_circular(self: Array, pad: Sizes) -> Array:
    return _pad_by_index(self, pad, "circular")


# ---------------------------------------------------------------- pixels and channels


def pixel_shuffle(self: Array, upscale_factor: int) -> Array:
    """Turn groups of channels into squares of pixels: (..., C r r, H, W) to (..., C, H r, W r)."""
    r = upscale_factor
    *batch, channels, height, width = self.shape
    if r < 1 or channels % (r * r):
        raise ValueError("The channels must be a multiple of the factor's square.")
    split = self.reshape(*batch, channels // (r * r), r, r, height, width)
    n = len(batch)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return split.transpose(order).reshape(*batch, channels // (r * r), height * r, width * r)


def pixel_unshuffle(self: Array, downscale_factor: int) -> Array:
    """Turn squares of pixels into groups of channels: (..., C, H r, W r) to (..., C r r, H, W)."""
    r = downscale_factor
    *batch, channels, height, width = self.shape
    if r < 1 or height % r or width % r:
        raise ValueError("Height and width must be multiples of the factor.")
    split = self.reshape(*batch, channels, height // r, r, width // r, r)
    n = len(batch)
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return split.transpose(order).reshape(*batch, channels * r * r, height // r, width // r)


def channel_shuffle(self: Array, groups: int) -> Array:
    """Take channels from all groups in turn."""
    batch, channels, *rest = self.shape
    if groups < 1 or channels % groups:
        raise ValueError("The channels must be a multiple of the groups.")
    return self.reshape(batch, groups, channels // groups, *rest).swapaxes(1, 2).reshape(self.shape)


ALIASES = {
    "_pad_circular": "_pad_circular",
    "native_channel_shuffle": "channel_shuffle",
}
