"""Media events read in one pass: the JSON text of a media server to tag, numbers and payload.

Only the shapes that bridges really send are read here. Whatever else is in a message, right or
wrong, is left to a full JSON parser: an answer is given only where that parser and a base64
decoder, run on the same bytes, would come to the same one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memset, strchr, strncmp

cdef enum:
    # Doubled names are looked for among the members seen; a bridge writes six at most.
    MAX_MEMBERS = 16
    # Fewer digits than the largest 64-bit integer has, so that none overflows.
    MAX_DIGITS = 18
    MAX_TAG_BYTES = 256

cdef enum:
    PLAIN = 1
    BEYOND_ASCII = 2
    NO_SEXTET = 0x80

cdef unsigned char[256] STRING_BYTES
"""What each byte is inside a JSON string; 0 ends a string or needs a full parser."""

cdef unsigned char[256] SEXTETS
"""Value of each base64 character, NO_SEXTET for one outside the alphabet."""


cdef int _fill_tables() except -1:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for byte in range(256):
        SEXTETS[byte] = NO_SEXTET
        STRING_BYTES[byte] = BEYOND_ASCII if byte >= 0x80 else PLAIN if byte >= 0x20 else 0
    for value, byte in enumerate(alphabet):
        SEXTETS[byte] = value
    STRING_BYTES[ord('"')] = 0
    STRING_BYTES[ord("\\")] = 0
    return 0

_fill_tables()


cdef struct Names:
    Span seen[MAX_MEMBERS]
    int count

# The readers below take the place where something starts and give the place after it, or NULL.
# They need no end pointer: a bytes object ends with a NUL that no reader steps over.
ctypedef const unsigned char *Place


cdef inline Place _spaces(Place at) noexcept nogil:
    while at[0] == b" " or at[0] == b"\n" or at[0] == b"\r" or at[0] == b"\t":
        at += 1
    return at


cdef inline bint _is(Span text, const char *word, Py_ssize_t length) noexcept nogil:
    return text.length == length and memcmp(text.start, word, length) == 0


cdef inline bint _is_new(Names *names, Span name) noexcept nogil:
    """Remember a member's name; False if it was there before, or there are too many."""
    cdef int index
    if names.count == MAX_MEMBERS:
        return False
    for index in range(names.count):
        if _is(name, <const char *>names.seen[index].start, names.seen[index].length):
            return False
    names.seen[names.count] = name
    names.count += 1
    return True


cdef inline Place _text(Place at, Span *text, unsigned char allowed) noexcept nogil:
    """A string without escapes, of ``allowed`` kinds of bytes; its UTF-8 is not checked."""
    if at[0] != b'"':
        return NULL
    at += 1
    text.start = at
    while STRING_BYTES[at[0]] & allowed:
        at += 1
    text.length = at - text.start
    return at + 1 if at[0] == b'"' else NULL


cdef inline Place _name(Place at, Span *name) noexcept nogil:
    """The next member's name with the colon and the space up to its value."""
    at = _text(_spaces(at), name, PLAIN)
    if at is NULL:
        return NULL
    at = _spaces(at)
    return _spaces(at + 1) if at[0] == b":" else NULL


cdef inline Place _after_value(Place at, bint *more) noexcept nogil:
    """Past the comma to the next member, or past the end of the object."""
    if at is NULL:
        return NULL
    at = _spaces(at)
    more[0] = at[0] == b","
    return at + 1 if more[0] or at[0] == b"}" else NULL


cdef inline Place _digits(Place at, int64_t *value) noexcept nogil:
    """An integer as JSON writes it; what follows, a further digit too, the caller refuses."""
    cdef bint negative = at[0] == b"-"
    cdef int64_t total = 0
    cdef Place first
    at += negative
    first = at
    while b"0" <= at[0] <= b"9" and at - first < MAX_DIGITS:
        total = 10 * total + (at[0] - <unsigned char>b"0")
        at += 1
    if at == first or first[0] == b"0" and (negative or at - first > 1):
        return NULL
    value[0] = -total if negative else total
    return at


cdef inline Place _integer(Place at, int64_t *value) noexcept nogil:
    """An integer, or a string that holds one."""
    if at[0] != b'"':
        return _digits(at, value)
    at = _digits(at + 1, value)
    return at + 1 if at is not NULL and at[0] == b'"' else NULL


cdef inline Place _anything_simple(Place at) noexcept nogil:
    """A value nobody asks for: plain string, integer, true, false or null."""
    cdef Span text
    cdef int64_t value
    if at[0] == b'"':
        return _text(at, &text, PLAIN)
    if strncmp(<const char *>at, b"true", 4) == 0 or strncmp(<const char *>at, b"null", 4) == 0:
        return at + 4
    if strncmp(<const char *>at, b"false", 5) == 0:
        return at + 5
    return _digits(at, &value)


cdef inline Place _payload(Place at, Span *payload) noexcept nogil:
    """A string up to its next quote; decoding it shows whether it was base64."""
    if at[0] != b'"':
        return NULL
    payload.start = at + 1
    at = <Place>strchr(<const char *>at + 1, b'"')
    if at is NULL:
        return NULL
    payload.length = at - payload.start
    return at + 1


cdef Place _media(Place at, Media *media) noexcept nogil:
    """The object that describes one packet."""
    cdef Names names
    cdef Span name
    cdef bint more = True
    names.count = 0
    if at[0] != b"{":
        return NULL
    at += 1
    while more:
        at = _name(at, &name)
        if at is NULL or not _is_new(&names, name):
            return NULL
        if _is(name, b"payload", 7):
            at = _payload(at, &media.payload)
        elif _is(name, b"tag", 3):
            at = _text(at, &media.tag, PLAIN | BEYOND_ASCII)
        elif _is(name, b"chunk", 5):
            at = _integer(at, &media.chunk)
            media.has_chunk = True
        elif _is(name, b"timestamp", 9):
            at = _integer(at, &media.timestamp)
            media.has_timestamp = True
        else:
            at = _anything_simple(at)
        at = _after_value(at, &more)
        if at is NULL:
            return NULL
    return at


cdef Place _event(Place at, Media *media) noexcept nogil:
    """A whole message that is a media event; its members may come in any order."""
    cdef Names names
    cdef Span name, event
    cdef bint is_media = False
    cdef bint more = True
    names.count = 0
    at = _spaces(at)
    if at[0] != b"{":
        return NULL
    at += 1
    while more:
        at = _name(at, &name)
        if at is NULL:
            return NULL
        if _is(name, b"event", 5):
            at = _text(at, &event, PLAIN)
            is_media = at is not NULL and _is(event, b"media", 5)
            if not is_media:
                return NULL
        elif not _is_new(&names, name):
            return NULL
        elif _is(name, b"media", 5):
            at = _media(at, media)
        else:
            at = _anything_simple(at)
        at = _after_value(at, &more)
        if at is NULL:
            return NULL
    return _spaces(at) if is_media else NULL


cdef bytes base64_bytes(Span text):
    """The bytes of canonical base64 (RFC 4648 section 4), or None."""
    cdef Place at = text.start
    cdef Py_ssize_t padding = 0
    cdef Py_ssize_t groups
    cdef uint32_t first, second, third, fourth
    cdef uint32_t seen = 0
    cdef unsigned char *out
    cdef bytes decoded
    if text.length == 0 or text.length % 4:
        return None
    if at[text.length - 1] == b"=":
        padding = 2 if at[text.length - 2] == b"=" else 1
    decoded = PyBytes_FromStringAndSize(NULL, text.length // 4 * 3 - padding)
    out = <unsigned char *>PyBytes_AS_STRING(decoded)
    groups = text.length // 4 - (padding > 0)
    while groups:
        first, second = SEXTETS[at[0]], SEXTETS[at[1]]
        third, fourth = SEXTETS[at[2]], SEXTETS[at[3]]
        seen |= first | second | third | fourth
        out[0] = <unsigned char>(first << 2 | second >> 4)
        out[1] = <unsigned char>(second << 4 | third >> 2)
        out[2] = <unsigned char>(third << 6 | fourth)
        at += 4
        out += 3
        groups -= 1
    if padding:
        first, second = SEXTETS[at[0]], SEXTETS[at[1]]
        third = SEXTETS[at[2]] if padding == 1 else 0
        seen |= first | second | third
        out[0] = <unsigned char>(first << 2 | second >> 4)
        if padding == 1:
            out[1] = <unsigned char>(second << 4 | third >> 2)
        if (third & 0x3 if padding == 1 else second & 0xF):
            return None
    return None if seen & NO_SEXTET else decoded


cdef bint read_media(const unsigned char *text, Py_ssize_t size, Media *media) noexcept nogil:
    """Whether ``size`` bytes, which a NUL follows, are a media event with a tag: see ``scan_media``.

    Its base64 and the UTF-8 of its tag have not been looked at.
    """
    cdef Place end
    memset(media, 0, sizeof(Media))
    end = _event(text, media)
    return end is not NULL and end - text == size and 0 < media.tag.length <= MAX_TAG_BYTES


cdef str tag_text(Span tag):
    """A tag as text, or None if it is not UTF-8."""
    try:
        return PyUnicode_DecodeUTF8(<const char *>tag.start, tag.length, NULL)
    except UnicodeDecodeError:
        return None


def scan_media(bytes message not None):
    """``(tag, chunk, timestamp, payload)`` of a media event, or None: ask a full parser.

    ``tag`` is the participant's tag, 1 to 256 bytes in UTF-8; ``chunk`` and ``timestamp`` (48 kHz
    units) are integers whether they came as numbers or strings, None when absent; ``payload`` is
    decoded and not empty. None is returned, and nothing raised, for every message that is not
    such an event or is not understood whole: other events, escapes, nested or doubled members
    (an ``event`` repeated with the same value is taken), fractions, integers of more than 18
    digits, other base64 alphabets, missing padding, malformed text of any kind.
    """
    cdef Media media
    cdef bytes payload
    cdef str tag
    if not read_media(<Place>PyBytes_AS_STRING(message), len(message), &media):
        return None
    payload = base64_bytes(media.payload)
    if payload is None:
        return None
    tag = tag_text(media.tag)
    if tag is None:
        return None
    return (
        tag,
        media.chunk if media.has_chunk else None,
        media.timestamp if media.has_timestamp else None,
        payload,
    )
