"""Uncoded audio on its way from frames of any size to chunks of one size, without a stop in Python.

Browsers send 128 samples at a time, 125 frames a second: they are copied into place as they come.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from _native.frames cimport Taker
from _native.frames import BINARY

cdef enum:
    SAMPLE_BYTES = 2


cdef class ChunkIntake(Taker):
    """Takes the binary messages of one connection as one stream of 16-bit samples.

    A message may end anywhere, also within a sample. ``chunks`` are those that are complete, each
    of ``chunk_bytes``, for the caller to use and to clear. ``size`` counts all bytes taken.
    """

    cdef readonly list chunks
    cdef readonly Py_ssize_t size
    cdef Py_ssize_t _chunk_bytes, _filled
    cdef bytearray _buffer

    def __cinit__(self, Py_ssize_t chunk_bytes):
        if chunk_bytes < SAMPLE_BYTES or chunk_bytes % SAMPLE_BYTES:
            raise ValueError(f"chunk_bytes={chunk_bytes}: a whole number of samples, at least one")
        self.opcode = BINARY
        self.chunks = []
        self._chunk_bytes = chunk_bytes
        self._buffer = bytearray(chunk_bytes)

    def put(self, bytes data not None):
        """Take a message that did not come the short way."""
        self.take(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def flush(self):
        """The whole samples of the chunk in the making; half a sample stays."""
        cdef Py_ssize_t whole = self._filled - self._filled % SAMPLE_BYTES
        cdef char *buffer = PyByteArray_AS_STRING(self._buffer)
        cdef bytes samples = PyBytes_FromStringAndSize(buffer, whole)
        if self._filled > whole:
            buffer[0] = buffer[whole]
        self._filled -= whole
        return samples

    cdef int take(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef char *buffer = PyByteArray_AS_STRING(self._buffer)
        cdef Py_ssize_t room
        self.size += size
        while self._filled + size >= self._chunk_bytes:
            room = self._chunk_bytes - self._filled
            memcpy(buffer + self._filled, data, room)
            data += room
            size -= room
            self._filled = 0
            self.chunks.append(PyBytes_FromStringAndSize(buffer, self._chunk_bytes))
        memcpy(buffer + self._filled, data, size)
        self._filled += size
        return 1
