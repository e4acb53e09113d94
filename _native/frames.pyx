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
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_XDECREF, PyObject
from libc.stdint cimport INT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

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
    MAX_CONTROL_BYTES = 125
    MAX_REASON_BYTES = 123
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

cdef enum:
    _CONTINUATION = 0
    _TEXT = 1
    _BINARY = 2
    _CLOSE = 8
    _PING = 9
    _PONG = 10

cdef enum:
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    INVALID_DATA = 1007
    TOO_BIG = 1009

cdef uint64_t HIGH_BITS = 0x8080808080808080ULL


class FrameError(Exception):
    """The peer broke the protocol; ``code`` and the text belong into the close frame."""

    def __init__(self, code, reason):
        self.code = code
        super().__init__(reason)


cdef inline uint32_t _load_key(const uint8_t *at) noexcept nogil:
    cdef uint32_t key
    memcpy(&key, at, 4)
    return key


cdef inline uint32_t _turn_key(uint32_t key, Py_ssize_t used) noexcept nogil:
    """The key as it stands after ``used`` bytes, on a little- or big-endian machine alike."""
    cdef uint8_t plain[4]
    cdef uint8_t turned[4]
    cdef int i
    memcpy(plain, &key, 4)
    for i in range(4):
        turned[i] = plain[(used + i) & 3]
    return _load_key(turned)


cdef uint64_t _unmask(
    uint8_t *to, const uint8_t *source, Py_ssize_t size, uint32_t key
) noexcept nogil:
    """Copy ``size`` bytes xor ``key``; the high bits of the answer tell whether all are ASCII."""
    cdef uint64_t wide = (<uint64_t>key << 32) | key
    cdef uint64_t word, seen = 0
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t words = size & ~<Py_ssize_t>7
    while i < words:
        memcpy(&word, source + i, 8)
        word ^= wide
        seen |= word
        memcpy(to + i, &word, 8)
        i += 8
    if i < size:
        word = 0
        memcpy(&word, source + i, size - i)
        word ^= wide
        memcpy(to + i, &word, size - i)
        # The key also fell on the bytes past the end: cut them off before looking.
        wide = 0
        memcpy(&wide, &word, size - i)
        seen |= wide
    return seen & HIGH_BITS


cdef Py_ssize_t _whole_characters(const uint8_t *text, Py_ssize_t size) noexcept nogil:
    """Bytes of ``text`` in whole characters; -1 as soon as no further byte could make it UTF-8.

    RFC 3629: shortest form only, no surrogates, nothing above U+10FFFF. At most three bytes at the
    end, the beginning of a character, are not counted.
    """
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t whole
    cdef uint64_t word
    cdef uint8_t lead, low, high
    cdef int more
    while at < size:
        if size - at >= 8:
            memcpy(&word, text + at, 8)
            if not word & HIGH_BITS:
                at += 8
                continue
        whole = at
        lead = text[at]
        at += 1
        if lead < 0x80:
            continue
        low = 0x80
        high = 0xBF
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                low = 0xA0
            elif lead == 0xED:
                high = 0x9F
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                low = 0x90
            elif lead == 0xF4:
                high = 0x8F
        else:
            return -1
        while more > 0:
            if at == size:
                return whole
            if not low <= text[at] <= high:
                return -1
            at += 1
            more -= 1
            low = 0x80
            high = 0xBF
    return size


cdef inline bint _is_utf8(const uint8_t *text, Py_ssize_t size) noexcept nogil:
    return _whole_characters(text, size) == size


cdef inline bint _is_close_code(int code) noexcept nogil:
    """Whether a close frame may carry ``code`` (RFC 6455 section 7.4 and the IANA registry)."""
    return (
        1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    )


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
        self.opcode = _TEXT

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
        if opcode >= _CLOSE:
            if opcode > _PONG:
                return self._fault(PROTOCOL_ERROR, "unknown opcode")
            if not fin:
                return self._fault(PROTOCOL_ERROR, "control frame is fragmented")
            if short_length > MAX_CONTROL_BYTES:
                return self._fault(PROTOCOL_ERROR, "control frame is too long")
        elif opcode > _BINARY:
            return self._fault(PROTOCOL_ERROR, "unknown opcode")
        elif opcode == _CONTINUATION:
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
        if opcode < _CLOSE and length > <uint64_t>(self._max_bytes - self._message_bytes):
            return self._fault(TOO_BIG, "message is too long")
        if self._masked:
            needed += 4
            if size < needed:
                return 0
            self._key = _load_key(head + needed - 4)
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
        if self._opcode >= _CLOSE:
            _unmask(self._control + self._control_bytes, data, size, self._key)
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
                high_bits = _unmask(
                    <uint8_t *>PyBytes_AS_STRING(message), data, size, self._key
                )
            self._in_payload = False
            if self._opcode == _TEXT and high_bits and not _is_utf8(
                <const uint8_t *>PyBytes_AS_STRING(message), size
            ):
                self._fault(INVALID_DATA, "text is not UTF-8")
                return False
            items.append((<int>self._opcode, message))
            return True
        else:
            self._append(data, size)
            if self._message_opcode == _TEXT and not self._check_text(complete and self._fin):
                self._fault(INVALID_DATA, "text is not UTF-8")
                return False
        self._left -= size
        if not complete:
            self._key = _turn_key(self._key, size)
            return False
        self._in_payload = False
        if self._opcode >= _CLOSE:
            return self._deliver_control(items)
        if not self._fin:
            return False
        opcode = self._message_opcode
        items.append((opcode, self._take_message()))
        return True

    cdef bint _offer(self, Taker taker, const uint8_t *data, Py_ssize_t size) except -1:
        """Whether ``taker`` has taken a masked message."""
        _unmask(_offered, data, size, self._key)
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
            self._high_bits |= _unmask(
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
        whole = _whole_characters(
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
        if self._opcode == _CLOSE and size:
            code = (self._control[0] << 8) | self._control[1]
            if size == 1 or not _is_close_code(code):
                self._fault(PROTOCOL_ERROR, "close frame has no valid code")
                return False
            if not _is_utf8(self._control + 2, size - 2):
                self._fault(INVALID_DATA, "close reason is not UTF-8")
                return False
        if self._opcode == _CLOSE:
            self._closed = True
        items.append(
            (<int>self._opcode, PyBytes_FromStringAndSize(<char *>self._control, size))
        )
        return True

    cdef int _fault(self, int code, str reason) noexcept:
        self._fault_code = code
        self._reason = reason
        return -1


cdef uint16_t[4096] _PAIRS
"""Two base64 characters for each value of twelve bits, as they stand in memory."""


cdef int _fill_pairs() except -1:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint8_t pair[2]
    for value in range(4096):
        pair[0] = alphabet[value >> 6]
        pair[1] = alphabet[value & 63]
        memcpy(&_PAIRS[value], pair, 2)
    return 0

_fill_pairs()


cdef uint8_t *_mask_base64(
    uint8_t *out, const uint8_t *data, Py_ssize_t size, uint32_t key
) noexcept nogil:
    """Write ``data`` as base64 xor ``key``; returns the place after it."""
    cdef uint16_t pairs[2]
    cdef uint8_t rest[3]
    cdef uint32_t word
    cdef Py_ssize_t groups = size // 3
    while groups:
        pairs[0] = _PAIRS[data[0] << 4 | data[1] >> 4]
        pairs[1] = _PAIRS[(data[1] & 15) << 8 | data[2]]
        memcpy(&word, pairs, 4)
        word ^= key
        memcpy(out, &word, 4)
        data += 3
        out += 4
        groups -= 1
    size %= 3
    if size:
        rest[0] = data[0]
        rest[1] = data[1] if size == 2 else 0
        pairs[0] = _PAIRS[rest[0] << 4 | rest[1] >> 4]
        pairs[1] = _PAIRS[(rest[1] & 15) << 8]
        memcpy(out, pairs, 4)
        out[3] = b"="
        if size == 1:
            out[2] = b"="
        memcpy(&word, out, 4)
        word ^= key
        memcpy(out, &word, 4)
        out += 4
    return out


cdef inline Py_ssize_t _head_bytes(Py_ssize_t size) noexcept nogil:
    """Bytes before the masking key of a frame with so much payload (RFC 6455 section 5.2)."""
    return 10 if size > 65535 else 4 if size > 125 else 2


cdef void _write_head(uint8_t *out, int opcode, bint fin, Py_ssize_t size) noexcept nogil:
    """The head of a frame without a mask."""
    cdef int i
    out[0] = <uint8_t>((fin << 7) | opcode)
    if size > 65535:
        out[1] = 127
        for i in range(8):
            out[2 + i] = <uint8_t>(<uint64_t>size >> (8 * (7 - i)))
    elif size > 125:
        out[1] = 126
        out[2] = <uint8_t>(size >> 8)
        out[3] = <uint8_t>size
    else:
        out[1] = <uint8_t>size


cdef bytes _encode(int opcode, object payload, bint fin, const uint8_t *key):
    """One frame; ``key`` points at four bytes, or is NULL for a frame without a mask."""
    cdef Py_buffer view
    cdef Py_ssize_t head
    cdef Py_ssize_t size
    cdef bytes frame
    cdef uint8_t *out
    if not (_CONTINUATION <= opcode <= _BINARY or _CLOSE <= opcode <= _PONG):
        raise ValueError(f"opcode {opcode} does not exist")
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        size = view.len
        if opcode >= _CLOSE and (size > MAX_CONTROL_BYTES or not fin):
            raise ValueError(f"a control frame holds {MAX_CONTROL_BYTES} bytes and is never split")
        head = _head_bytes(size) + (0 if key is NULL else 4)
        frame = PyBytes_FromStringAndSize(NULL, head + size)
        out = <uint8_t *>PyBytes_AS_STRING(frame)
        _write_head(out, opcode, fin, size)
        if key is NULL:
            memcpy(out + head, view.buf, size)
        else:
            out[1] |= 0x80
            memcpy(out + head - 4, key, 4)
            _unmask(out + head, <const uint8_t *>view.buf, size, _load_key(key))
    finally:
        PyBuffer_Release(&view)
    return frame


def encode(int opcode, object payload, *, bint fin=True):
    """One frame as a server sends it.

    ``payload`` is any contiguous bytes-like object and is not checked to be UTF-8. ``ValueError``
    for an opcode that does not exist and for a control frame above 125 bytes.
    """
    return _encode(opcode, payload, fin, NULL)


def encode_masked(int opcode, object payload, bytes key not None, *, bint fin=True):
    """One frame as a client sends it; ``key`` is four bytes that should be unpredictable."""
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    return _encode(opcode, payload, fin, <const uint8_t *>PyBytes_AS_STRING(key))


def encode_masked_many(int opcode, list payloads not None, bytes keys not None):
    """Unfragmented frames as a client sends them, one after another, for a single write.

    ``opcode`` is TEXT or BINARY, each payload ``bytes`` of at most 65,535 bytes. ``keys`` holds
    four unpredictable bytes for each; ``ValueError`` if it holds fewer.
    """
    cdef Py_ssize_t count = len(payloads)
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t size
    cdef const uint8_t *key = <const uint8_t *>PyBytes_AS_STRING(keys)
    cdef const uint8_t *source
    cdef uint8_t *out
    cdef bytes frames
    cdef bytes payload
    if opcode != _TEXT and opcode != _BINARY:
        raise ValueError(f"opcode {opcode} is not one of messages")
    if PyBytes_GET_SIZE(keys) < 4 * count:
        raise ValueError(f"{count} frames need {4 * count} bytes of keys, not {len(keys)}")
    for payload in payloads:
        if payload is None:
            raise TypeError("a payload is bytes")
        size = PyBytes_GET_SIZE(payload)
        if size > 65535:
            raise ValueError(f"a payload of {size} bytes is too long to be sent with others")
        total += size + (6 if size <= 125 else 8)
    frames = PyBytes_FromStringAndSize(NULL, total)
    out = <uint8_t *>PyBytes_AS_STRING(frames)
    for payload in payloads:
        source = <const uint8_t *>PyBytes_AS_STRING(payload)
        size = PyBytes_GET_SIZE(payload)
        out[0] = <uint8_t>(0x80 | opcode)
        if size <= 125:
            out[1] = <uint8_t>(0x80 | size)
            out += 2
        else:
            out[1] = 0x80 | 126
            out[2] = <uint8_t>(size >> 8)
            out[3] = <uint8_t>size
            out += 4
        memcpy(out, key, 4)
        _unmask(out + 4, source, size, _load_key(key))
        out += 4 + size
        key += 4
    return frames


def encode_masked_base64(
        bytes head not None, object data, bytes tail not None, bytes key not None):
    """A text frame of ``head``, ``data`` as base64 (RFC 4648 section 4) and ``tail``, masked.

    Written in one pass; ``data`` is any contiguous bytes-like object, ``key`` four bytes that
    should be unpredictable. ``head`` and ``tail`` are UTF-8, not checked.
    """
    cdef Py_ssize_t head_bytes = PyBytes_GET_SIZE(head)
    cdef Py_ssize_t tail_bytes = PyBytes_GET_SIZE(tail)
    cdef Py_ssize_t size, start
    cdef Py_buffer view
    cdef bytes frame
    cdef uint8_t *out
    cdef uint32_t turned
    if PyBytes_GET_SIZE(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        size = head_bytes + (view.len + 2) // 3 * 4 + tail_bytes
        start = _head_bytes(size) + 4
        frame = PyBytes_FromStringAndSize(NULL, start + size)
        out = <uint8_t *>PyBytes_AS_STRING(frame)
        _write_head(out, _TEXT, True, size)
        out[1] |= 0x80
        memcpy(out + start - 4, PyBytes_AS_STRING(key), 4)
        turned = _load_key(out + start - 4)
        out += start
        _unmask(out, <const uint8_t *>PyBytes_AS_STRING(head), head_bytes, turned)
        # Whole groups of four characters leave the key as it stands after the head.
        turned = _turn_key(turned, head_bytes)
        out = _mask_base64(out + head_bytes, <const uint8_t *>view.buf, view.len, turned)
        _unmask(out, <const uint8_t *>PyBytes_AS_STRING(tail), tail_bytes, turned)
    finally:
        PyBuffer_Release(&view)
    return frame


def close_payload(int code, str reason not None=""):
    """Payload of a close frame; ``reason`` is cut to 123 bytes between characters.

    1005 gives an empty payload, any other code that may not be sent ``ValueError``.
    """
    if code == NO_STATUS:
        return b""
    if not _is_close_code(code):
        raise ValueError(f"close code {code} may not be sent")
    cdef bytes text = reason.encode("utf-8", "replace")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    if size > MAX_REASON_BYTES:
        size = MAX_REASON_BYTES
        while (<const uint8_t *>PyBytes_AS_STRING(text))[size] & 0xC0 == 0x80:
            size -= 1
    return code.to_bytes(2, "big") + text[:size]


def parse_close(bytes payload not None):
    """Code and reason of a close frame that ``Decoder`` returned; 1005 when it carries none."""
    if not payload:
        return NO_STATUS, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()
