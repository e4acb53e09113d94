"""WebSocket frames (RFC 6455 section 5) to whole messages and back.

Sans-IO: bytes in, messages out, no clocks and no sockets. Extensions are never negotiated, so the
reserved bits must be zero. A message that arrives in one piece is unmasked straight into the
object that is handed out; one that arrives in pieces grows in place. The GIL is never released:
a frame is less work than letting go of it would be.

    FrameError                 code: what the close frame must say (RFC 6455 section 7.4.1)
        1002                   reserved bit or opcode, wrong masking, bad control or close frame
        1007                   a text message, finished or not, or a close reason is not UTF-8
        1009                   a message is longer than ``max_message_bytes``
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_XDECREF, PyObject
from libc.stdint cimport INT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from _native.rfc6455 cimport (
    INVALID_DATA, MAX_CONTROL_BYTES, NO_STATUS, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION,
    OPCODE_PONG, OPCODE_TEXT, PROTOCOL_ERROR, TOO_BIG, is_close_code, is_utf8, load_key, turn_key,
    unmask, whole_characters,
)

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1

cdef extern from *:
    """
    static PyObject *edgescribe_new_bytes(Py_ssize_t size) {
        return PyBytes_FromStringAndSize(NULL, size);
    }
    static char *edgescribe_bytes_start(PyObject *bytes) {
        return PyBytes_AS_STRING(bytes);
    }
    """
    PyObject *edgescribe_new_bytes(Py_ssize_t size) except NULL
    char *edgescribe_bytes_start(PyObject *bytes) noexcept

cdef enum:
    # RFC 6455 section 5.2: 2 bytes, 8 of extended length, 4 of masking key.
    MAX_HEAD_BYTES = 14
    # What a header alone can make the decoder allocate; a longer message grows as it arrives.
    FIRST_ALLOCATION_BYTES = 65536
    # Longer texts are not offered to a ``Taker``.
    MAX_OFFERED_BYTES = 16384
    # So many texts that are taken are as much work as one item is to the decoder's user.
    TAKEN_PER_ITEM = 16
    # No more are decoded in one call: the product of the two fits a Py_ssize_t.
    MOST_ITEMS = 0x7FFFFFFF

CONTINUATION = 0
TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10


class FrameError(Exception):
    """The peer broke the protocol; ``code`` and the text belong into the close frame."""

    def __init__(self, code, reason):
        self.code = code
        super().__init__(reason)


cdef uint8_t[MAX_OFFERED_BYTES + 1] _offered
"""The text that is being offered, and a NUL; used while the GIL is held."""


cdef class Taker:
    """Who is offered whole messages before they become such; derived from in other extensions.

    ``opcode`` says of which kind: texts, unless a derived class chooses otherwise. ``take`` gets
    the message, which a NUL follows, for the time of the call; the UTF-8 of a text is not checked.
    It answers 1 if it has taken the message, and then knew a text to be UTF-8, or 0. ``waiting``
    counts the messages taken; the decoder's user sets it back.
    """

    def __cinit__(self):
        self.opcode = OPCODE_TEXT

    cdef int take(self, const unsigned char *text, Py_ssize_t size) except -1:
        return 0

    def offer(self, bytes text not None):
        """Whether it takes a text that had to wait as a message."""
        if PyBytes_GET_SIZE(text) > MAX_OFFERED_BYTES:
            return False
        if not self.take(<const unsigned char *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)):
            return False
        self.waiting += 1
        return True


@cython.final
cdef class Decoder:
    """Frames of one direction of one connection to messages and control frames.

    ``masked`` says what the peer must do: True when the peer is a client. Not for several threads
    at a time.
    """

    cdef bytes _data
    cdef Py_ssize_t _at
    cdef Py_ssize_t _max_bytes
    cdef bint _masked
    # What ended the stream: a close frame, or a violation that is raised after the items before it.
    cdef bint _closed
    cdef int _fault_code
    cdef str _reason
    cdef bint _raised
    # The frame being read.
    cdef uint8_t _head[MAX_HEAD_BYTES]
    cdef uint8_t _head_bytes
    cdef bint _in_payload
    cdef bint _fin
    cdef uint8_t _opcode
    cdef uint32_t _key
    cdef Py_ssize_t _left
    cdef uint8_t _control[MAX_CONTROL_BYTES]
    cdef uint8_t _control_bytes
    # The message being put together; its opcode is 0 between messages.
    cdef uint8_t _message_opcode
    cdef uint64_t _high_bits
    # How much of a text in the making is known to be whole characters.
    cdef Py_ssize_t _checked_bytes
    cdef PyObject *_message
    cdef Py_ssize_t _message_bytes
    cdef Py_ssize_t _message_room

    def __cinit__(self, Py_ssize_t max_message_bytes, *, bint masked=True):
        if max_message_bytes < 1:
            raise ValueError(f"max_message_bytes={max_message_bytes}: at least 1")
        self._max_bytes = max_message_bytes
        self._masked = masked

    def __dealloc__(self):
        Py_XDECREF(self._message)

    @property
    def pending(self):
        """Whether ``decode(b"")`` has something to return or to raise."""
        return self._data is not None or (self._fault_code != 0 and not self._raised)

    @property
    def ended(self):
        """Whether a close frame or a violation ended the stream; later bytes are dropped."""
        return self._closed or self._fault_code != 0

    def decode(
            self, bytes data not None, Py_ssize_t limit=cython.cast(Py_ssize_t, INT64_MAX),
            Taker taker=None):
        """Take ``data`` and return up to ``limit`` items ``(opcode, payload)``, in order.

        An item is a whole text or binary message or one control frame. What ``taker`` takes are
        no items, though they count; it is offered those that come in one frame, until there is
        an item: that has to be dealt with first. What is left over is kept:
        ``pending`` tells, and ``decode(b"")`` goes on. A violation raises ``FrameError`` once all
        items before it were returned, and again on every later call.
        """
        cdef list items = []
        if not self._closed and self._fault_code == 0:
            if self._data is None:
                self._data = data
                self._at = 0
            elif data:
                self._data = self._data[self._at :] + data
                self._at = 0
            self._run(items, limit, taker)
            if self._at == PyBytes_GET_SIZE(self._data):
                self._data = None
        if self._closed or self._fault_code:
            self._data = None
            self._drop_message()
        if self._fault_code and not items:
            self._raised = True
            raise FrameError(self._fault_code, self._reason)
        return items

    cdef int _run(self, list items, Py_ssize_t limit, Taker taker) except -1:
        """Decode ``_data`` from ``_at`` on until it ends, ``limit`` items are there, or a fault."""
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(self._data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self._data)
        cdef Py_ssize_t at = self._at
        cdef Py_ssize_t work = 0
        cdef Py_ssize_t most_work = min(limit, MOST_ITEMS) * TAKEN_PER_ITEM
        cdef Py_ssize_t used, taken
        cdef bint is_taken
        while at < size and work < most_work and not self._closed and self._fault_code == 0:
            if not self._in_payload:
                used = self._read_head(data + at, size - at)
                if used < 0:
                    break
                at += used
                if not self._in_payload:
                    break
            used = min(self._left, size - at)
            taken = 0 if taker is None else taker.waiting
            if self._take(items, data + at, used, taker):
                is_taken = taker is not None and taker.waiting != taken
                work += 1 if is_taken else TAKEN_PER_ITEM
            at += used
        self._at = at
        return 0

    cdef Py_ssize_t _read_head(self, const uint8_t *data, Py_ssize_t size) noexcept:
        """Read a frame's header, perhaps continued from the last chunk: bytes used, -1 = fault."""
        cdef Py_ssize_t before = self._head_bytes
        cdef Py_ssize_t taken, needed
        if before == 0:
            needed = self._parse_head(data, size)
            if needed != 0:
                return needed
            memcpy(self._head, data, size)
            self._head_bytes = <uint8_t>size
            return size
        taken = min(MAX_HEAD_BYTES - before, size)
        memcpy(self._head + before, data, taken)
        needed = self._parse_head(self._head, before + taken)
        if needed < 0:
            return -1
        if needed == 0:
            self._head_bytes = <uint8_t>(before + taken)
            return taken
        self._head_bytes = 0
        return needed - before

    cdef Py_ssize_t _parse_head(self, const uint8_t *head, Py_ssize_t size) noexcept:
        """Length of the header at ``head``; 0 when it is incomplete, -1 on a violation."""
        cdef int opcode, short_length
        cdef bint fin
        cdef Py_ssize_t needed = 2
        cdef uint64_t length
        cdef int i
        if size < 2:
            return 0
        fin = head[0] >> 7
        opcode = head[0] & 0x0F
        short_length = head[1] & 0x7F
        if head[0] & 0x70:
            return self._fault(PROTOCOL_ERROR, "reserved bits are set")
        if (head[1] >> 7) != self._masked:
            return self._fault(
                PROTOCOL_ERROR, "frame is not masked" if self._masked else "frame is masked"
            )
        if opcode >= OPCODE_CLOSE:
            if opcode > OPCODE_PONG:
                return self._fault(PROTOCOL_ERROR, "unknown opcode")
            if not fin:
                return self._fault(PROTOCOL_ERROR, "control frame is fragmented")
            if short_length > MAX_CONTROL_BYTES:
                return self._fault(PROTOCOL_ERROR, "control frame is too long")
        elif opcode > OPCODE_BINARY:
            return self._fault(PROTOCOL_ERROR, "unknown opcode")
        elif opcode == OPCODE_CONTINUATION:
            if self._message_opcode == 0:
                return self._fault(PROTOCOL_ERROR, "continuation of no message")
        elif self._message_opcode != 0:
            return self._fault(PROTOCOL_ERROR, "message begins inside another")

        length = short_length
        if short_length >= 126:
            needed += 2 if short_length == 126 else 8
            if size < needed:
                return 0
            length = 0
            for i in range(2, needed):
                length = (length << 8) | head[i]
            if length >> 63:
                return self._fault(PROTOCOL_ERROR, "frame length has its highest bit set")
        if opcode < OPCODE_CLOSE and length > <uint64_t>(self._max_bytes - self._message_bytes):
            return self._fault(TOO_BIG, "message is too long")
        if self._masked:
            needed += 4
            if size < needed:
                return 0
            self._key = load_key(head + needed - 4)
        self._fin = fin
        self._opcode = <uint8_t>opcode
        self._left = <Py_ssize_t>length
        self._in_payload = True
        return needed

    cdef bint _take(
            self, list items, const uint8_t *data, Py_ssize_t size, Taker taker) except -1:
        """Take ``size`` bytes of the frame's payload; True when they completed an item."""
        cdef bint complete = size == self._left
        cdef bytes message
        cdef uint64_t high_bits
        cdef int opcode
        if self._opcode >= OPCODE_CLOSE:
            unmask(self._control + self._control_bytes, data, size, self._key)
            self._control_bytes += <uint8_t>size
        elif complete and self._fin and self._message_opcode == 0:
            if (
                taker is not None and self._opcode == taker.opcode and size <= MAX_OFFERED_BYTES
                and not items and self._offer(taker, data, size)
            ):
                self._in_payload = False
                return True
            message = PyBytes_FromStringAndSize(NULL, size)
            high_bits = 0
            if size:
                high_bits = unmask(
                    <uint8_t *>PyBytes_AS_STRING(message), data, size, self._key
                )
            self._in_payload = False
            if self._opcode == OPCODE_TEXT and high_bits and not is_utf8(
                <const uint8_t *>PyBytes_AS_STRING(message), size
            ):
                self._fault(INVALID_DATA, "text is not UTF-8")
                return False
            items.append((<int>self._opcode, message))
            return True
        else:
            self._append(data, size)
            if self._message_opcode == OPCODE_TEXT and not self._check_text(complete and self._fin):
                self._fault(INVALID_DATA, "text is not UTF-8")
                return False
        self._left -= size
        if not complete:
            self._key = turn_key(self._key, size)
            return False
        self._in_payload = False
        if self._opcode >= OPCODE_CLOSE:
            return self._deliver_control(items)
        if not self._fin:
            return False
        opcode = self._message_opcode
        items.append((opcode, self._take_message()))
        return True

    cdef bint _offer(self, Taker taker, const uint8_t *data, Py_ssize_t size) except -1:
        """Whether ``taker`` has taken a masked message."""
        unmask(_offered, data, size, self._key)
        _offered[size] = 0
        if not taker.take(_offered, size):
            return False
        taker.waiting += 1
        return True

    cdef int _append(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Add payload bytes to the message being put together, growing it in place."""
        cdef Py_ssize_t needed = self._message_bytes + size
        cdef Py_ssize_t room
        if self._message_opcode == 0:
            self._message_opcode = self._opcode
            self._high_bits = 0
            self._checked_bytes = 0
        if needed > self._message_room:
            room = self._message_bytes + min(self._left, FIRST_ALLOCATION_BYTES)
            room = min(max(room, needed, 2 * self._message_room), self._max_bytes)
            if self._message is NULL:
                self._message = edgescribe_new_bytes(room)
            else:
                self._resize_message(room)
            self._message_room = room
        if size:
            self._high_bits |= unmask(
                <uint8_t *>edgescribe_bytes_start(self._message) + self._message_bytes,
                data,
                size,
                self._key,
            )
        self._message_bytes = needed
        return 0

    cdef bint _check_text(self, bint to_the_end) noexcept:
        """Whether the text so far is UTF-8, or ``to_the_end`` a whole text's; each byte once."""
        cdef Py_ssize_t whole
        if self._high_bits == 0:
            self._checked_bytes = self._message_bytes
            return True
        whole = whole_characters(
            <const uint8_t *>edgescribe_bytes_start(self._message) + self._checked_bytes,
            self._message_bytes - self._checked_bytes,
        )
        if whole < 0:
            return False
        self._checked_bytes += whole
        return not to_the_end or self._checked_bytes == self._message_bytes

    cdef int _resize_message(self, Py_ssize_t room) except -1:
        try:
            _PyBytes_Resize(&self._message, room)
        except MemoryError:
            self._drop_message()
            raise
        return 0

    cdef bytes _take_message(self):
        """The message put together so far, cut to its length; the decoder lets go of it."""
        cdef bytes message
        if self._message_bytes == 0:
            message = b""
        else:
            if self._message_bytes != self._message_room:
                self._resize_message(self._message_bytes)
            message = <bytes>self._message
        self._drop_message()
        return message

    cdef void _drop_message(self) noexcept:
        Py_XDECREF(self._message)
        self._message = NULL
        self._message_bytes = 0
        self._message_room = 0
        self._message_opcode = 0

    cdef bint _deliver_control(self, list items) except -1:
        cdef Py_ssize_t size = self._control_bytes
        cdef int code
        self._control_bytes = 0
        if self._opcode == OPCODE_CLOSE and size:
            code = (self._control[0] << 8) | self._control[1]
            if size == 1 or not is_close_code(code):
                self._fault(PROTOCOL_ERROR, "close frame has no valid code")
                return False
            if not is_utf8(self._control + 2, size - 2):
                self._fault(INVALID_DATA, "close reason is not UTF-8")
                return False
        if self._opcode == OPCODE_CLOSE:
            self._closed = True
        items.append(
            (<int>self._opcode, PyBytes_FromStringAndSize(<char *>self._control, size))
        )
        return True

    cdef int _fault(self, int code, str reason) noexcept:
        self._fault_code = code
        self._reason = reason
        return -1


def parse_close(bytes payload not None):
    """Code and reason of a close frame that ``Decoder`` returned; 1005 when it carries none."""
    if not payload:
        return NO_STATUS, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()
