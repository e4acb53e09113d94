"""Bytes of a socket that is read without being asked whether it has any."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "<sys/socket.h>" nogil:
    const int MSG_DONTWAIT
    Py_ssize_t recv(int fd, void *buffer, size_t size, int flags)

cdef enum:
    _MOST_BYTES = 65536

MOST_BYTES = _MOST_BYTES

cdef char[_MOST_BYTES] _buffer
"""Shared: it is filled and emptied while the GIL is held."""


def receive(int fd):
    """What a socket holds, at most ``MOST_BYTES`` of it; never waits, never releases the GIL.

    Returns None when there is nothing yet, ``b""`` at the end of the stream; raises ``OSError``
    when the connection broke.
    """
    cdef Py_ssize_t size
    while True:
        size = recv(fd, _buffer, _MOST_BYTES, MSG_DONTWAIT)
        if size >= 0:
            return PyBytes_FromStringAndSize(_buffer, size)
        if errno == EAGAIN:
            return None
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
