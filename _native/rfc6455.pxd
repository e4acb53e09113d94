"""What both ways of a WebSocket share (RFC 6455): opcodes, close codes, masks, and what is UTF-8.

Comes in: bytes. Goes out: bytes and answers. For ``frames`` and ``frame_writer``, into which it is
compiled: a call from one extension to another would be more than most of these take.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    OPCODE_CONTINUATION = 0
    OPCODE_TEXT = 1
    OPCODE_BINARY = 2
    OPCODE_CLOSE = 8
    OPCODE_PING = 9
    OPCODE_PONG = 10

cdef enum:
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    INVALID_DATA = 1007
    TOO_BIG = 1009

cdef enum:
    MAX_CONTROL_BYTES = 125

cdef extern from *:
    """
    #define EDGESCRIBE_HIGH_BITS 0x8080808080808080ULL
    """
    const uint64_t HIGH_BITS "EDGESCRIBE_HIGH_BITS"


cdef inline uint32_t load_key(const uint8_t *at) noexcept nogil:
    cdef uint32_t key
    memcpy(&key, at, 4)
    return key


cdef inline uint32_t turn_key(uint32_t key, Py_ssize_t used) noexcept nogil:
    """The key as it stands after ``used`` bytes, on a little- or big-endian machine alike."""
    cdef uint8_t plain[4]
    cdef uint8_t turned[4]
    cdef int i
    memcpy(plain, &key, 4)
    for i in range(4):
        turned[i] = plain[(used + i) & 3]
    return load_key(turned)


cdef inline uint64_t unmask(
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


cdef inline Py_ssize_t whole_characters(const uint8_t *text, Py_ssize_t size) noexcept nogil:
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


cdef inline bint is_utf8(const uint8_t *text, Py_ssize_t size) noexcept nogil:
    return whole_characters(text, size) == size


cdef inline bint is_close_code(int code) noexcept nogil:
    """Whether a close frame may carry ``code`` (RFC 6455 section 7.4 and the IANA registry)."""
    return (
        1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    )
