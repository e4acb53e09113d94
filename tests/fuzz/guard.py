"""Buffers that end where memory ends: one byte read or written beyond them ends the process.

For libraries that are not built with the sanitizers, which see nothing of what goes on in them.
"""

from __future__ import annotations

import ctypes
import mmap

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0


class GuardedBuffer:
    """``size`` bytes at most, right before a page that nobody may touch."""

    def __init__(self, size: int) -> None:
        self._usable = -(-max(size, 1) // _PAGE) * _PAGE
        self._map = mmap.mmap(-1, self._usable + _PAGE)
        self._view = memoryview(self._map)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None, use_errno=True)
        guard = ctypes.c_void_p(start + self._usable)
        if libc.mprotect(guard, ctypes.c_size_t(_PAGE), _PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.end = start + self._usable
        """The first address beyond."""

    def place(self, data: bytes) -> memoryview:
        """A copy of ``data`` whose last byte is the last that may be touched."""
        view = self.room(len(data))
        view[:] = data
        return view

    def room(self, size: int) -> memoryview:
        """The last ``size`` bytes, with what they hold."""
        return self._view[self._usable - size : self._usable]
