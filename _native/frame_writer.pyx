"""WebSocket frames to send (RFC 6455 section 5), as a server and as a client sends them.

Comes in: payloads, and masking keys of the caller's. Goes out: bytes for a socket. For whoever
writes to one. The GIL is never released: a frame is less work than letting go of it would be.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from _native.rfc6455 cimport (
    MAX_CONTROL_BYTES, NO_STATUS, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_PONG,
    OPCODE_TEXT, is_close_code, load_key, turn_key, unmask,
)

cdef enum:
    MAX_REASON_BYTES = 123

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
    if not (OPCODE_CONTINUATION <= opcode <= OPCODE_BINARY or OPCODE_CLOSE <= opcode <= OPCODE_PONG):
        raise ValueError(f"opcode {opcode} does not exist")
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        size = view.len
        if opcode >= OPCODE_CLOSE and (size > MAX_CONTROL_BYTES or not fin):
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
            unmask(out + head, <const uint8_t *>view.buf, size, load_key(key))
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
    if opcode != OPCODE_TEXT and opcode != OPCODE_BINARY:
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
        unmask(out + 4, source, size, load_key(key))
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
        _write_head(out, OPCODE_TEXT, True, size)
        out[1] |= 0x80
        memcpy(out + start - 4, PyBytes_AS_STRING(key), 4)
        turned = load_key(out + start - 4)
        out += start
        unmask(out, <const uint8_t *>PyBytes_AS_STRING(head), head_bytes, turned)
        # Whole groups of four characters leave the key as it stands after the head.
        turned = turn_key(turned, head_bytes)
        out = _mask_base64(out + head_bytes, <const uint8_t *>view.buf, view.len, turned)
        unmask(out, <const uint8_t *>PyBytes_AS_STRING(tail), tail_bytes, turned)
    finally:
        PyBuffer_Release(&view)
    return frame


def close_payload(int code, str reason not None=""):
    """Payload of a close frame; ``reason`` is cut to 123 bytes between characters.

    1005 gives an empty payload, any other code that may not be sent ``ValueError``.
    """
    if code == NO_STATUS:
        return b""
    if not is_close_code(code):
        raise ValueError(f"close code {code} may not be sent")
    cdef bytes text = reason.encode("utf-8", "replace")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    if size > MAX_REASON_BYTES:
        size = MAX_REASON_BYTES
        while (<const uint8_t *>PyBytes_AS_STRING(text))[size] & 0xC0 == 0x80:
            size -= 1
    return code.to_bytes(2, "big") + text[:size]
