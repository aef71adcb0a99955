"""The memory that packed weights lie in: large pages, where the system gives them.

A cache of the second level holds more of a large page, since its addresses are spread evenly over the sets.
Fewer translations are missed, too. Pieces share pages, so that all weights of a small model lie on one.
"""

from __future__ import annotations

import mmap
from _thread import allocate_lock  # all of threading takes long to import
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

LINE = 64
LARGE_PAGE = 2 * 1024 * 1024
# A piece of this many bytes gets pages of its own: fewer would leave most of one unused.
LARGE_BYTES = 1024 * 1024
# Fewer bytes are no reason to take a large page.
SMALL_BYTES = 16 * 1024


def reserve(size: int) -> Bytes:
    """Return memory of this many bytes for weights. It begins at a cache line."""
    if size >= LARGE_BYTES:
        memory = _large_pages(size)
    else:
        memory = _shared.take(size) if size >= SMALL_BYTES else None
    return aligned(size) if memory is None else memory


class _Shared:
    """Large pages that pieces of several weights lie on, one after the other. The pieces keep them alive."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._page: Bytes | None = None
        self._used = 0

    def take(self, size: int) -> Bytes | None:
        """Return memory of at most a page, or None without large pages."""
        with self._lock:
            if self._page is None or self._used + size > LARGE_PAGE:
                self._page, self._used = _large_pages(LARGE_PAGE), 0
            if self._page is None:
                return None
            begin = self._used
            self._used += -(-size // LINE) * LINE
            return self._page[begin : begin + size]


_shared = _Shared()


def _large_pages(size: int) -> Bytes | None:
    """Return memory that begins at a large page. None if the system has none."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    mapped = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        mapped.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without large pages
        mapped.close()
        return None
    memory = np.frombuffer(mapped, np.uint8)
    begin = -memory.ctypes.data % LARGE_PAGE
    return memory[begin : begin + size]


def aligned(size: int) -> Bytes:
    """Return memory that begins at a cache line, for other things than weights."""
    memory = np.empty(size + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size]
