from libc.stdint cimport int64_t


cdef struct Span:
    const unsigned char *start
    Py_ssize_t length

cdef struct Media:
    Span tag
    Span payload
    int64_t chunk
    int64_t timestamp
    bint has_chunk
    bint has_timestamp

cdef bint read_media(const unsigned char *text, Py_ssize_t size, Media *media) noexcept nogil
cdef bytes base64_bytes(Span text)
cdef str tag_text(Span tag)
