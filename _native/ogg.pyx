"""Opus in Ogg (RFC 3533, RFC 7845): pages cut anyhow to packets, and packets to pages.

Positions count 48 kHz samples. The checksum, the lacing and the times are done here; nothing is
decoded. An object belongs to one thread at a time.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MIN, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

from _native.toc cimport packet_samples

cdef enum:
    HEADER_BYTES = 27
    # The longest page has 255 segments of 255 bytes.
    MAX_PAGE_BYTES = 27 + 255 + 255 * 255
    # RFC 7845 section 6: no packet of a single stream is longer.
    MAX_PACKET_BYTES = 61440
    CONTINUED = 1
    BEGINNING = 2
    END = 4
    # What damaged pages may cost: the checksum of each is up to 65 kB of work.
    MOST_BAD_IN_A_PIECE = 16
    MOST_BAD = 32
    # Bytes without any page in them.
    MOST_NOISE = 1 << 16

cdef enum:
    # The longest gap that a position may jump; beyond, the page's position is not believed.
    MOST_JUMP = 48000 * 3600

cdef uint32_t[8][256] CRC
"""Tables for eight bytes at a time of the polynomial 0x04c11db7, not reflected."""


cdef int _fill_tables() except -1:
    cdef uint32_t crc
    cdef int byte, bit, table
    for byte in range(256):
        crc = <uint32_t>byte << 24
        for bit in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000u else 0)
        CRC[0][byte] = crc
    for byte in range(256):
        for table in range(1, 8):
            crc = CRC[table - 1][byte]
            CRC[table][byte] = (crc << 8) ^ CRC[0][crc >> 24]
    return 0

_fill_tables()


class OggError(Exception):
    """The bytes are no Ogg with Opus in it; ``str()`` says what they are. Nothing will help."""


cdef uint32_t _crc(uint32_t crc, const unsigned char *data, Py_ssize_t size) noexcept nogil:
    cdef uint32_t first, second
    while size >= 8:
        first = crc ^ (<uint32_t>data[0] << 24 | <uint32_t>data[1] << 16 | <uint32_t>data[2] << 8
                       | data[3])
        crc = (CRC[7][first >> 24] ^ CRC[6][first >> 16 & 255] ^ CRC[5][first >> 8 & 255]
               ^ CRC[4][first & 255] ^ CRC[3][data[4]] ^ CRC[2][data[5]] ^ CRC[1][data[6]]
               ^ CRC[0][data[7]])
        data += 8
        size -= 8
    while size:
        crc = (crc << 8) ^ CRC[0][crc >> 24 ^ data[0]]
        data += 1
        size -= 1
    return crc


cdef uint32_t _page_crc(const unsigned char *page, Py_ssize_t size) noexcept nogil:
    """The checksum of a page as if its own field were zero."""
    cdef unsigned char[4] zeros
    zeros[0] = zeros[1] = zeros[2] = zeros[3] = 0
    cdef uint32_t crc = _crc(0, page, 22)
    crc = _crc(crc, zeros, 4)
    return _crc(crc, page + 26, size - 26)


cdef inline uint64_t _little(const unsigned char *data, int size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int index
    for index in range(size):
        value |= <uint64_t>data[index] << (8 * index)
    return value


cdef inline void _put_little(unsigned char *out, uint64_t value, int size) noexcept nogil:
    cdef int index
    for index in range(size):
        out[index] = <unsigned char>(value >> (8 * index))


@cython.final
cdef class Demuxer:
    """Takes a stream of Ogg bytes in pieces and gives the packets of its Opus stream.

    Pages may be cut anywhere and packets may go on over pages. Of several logical streams the
    Opus one that began last counts: streams may follow each other (a chain). Without a beginning
    the first page's stream is taken for Opus: the sender was joined midway. Damaged pages are left
    out. Memory: one page and one packet.
    """

    cdef unsigned char *held
    cdef Py_ssize_t held_bytes
    cdef Py_ssize_t held_room
    cdef unsigned char *partial
    """A packet that goes on over the page's end; -1 bytes of it: it is left out."""
    cdef Py_ssize_t partial_bytes
    cdef Py_ssize_t partial_room
    cdef bint has_stream
    cdef bint ended
    cdef bint heard
    """Whether the stream has had a page with audio."""
    cdef bint awaits_tags
    cdef bint in_tags
    cdef bint saw_beginning
    cdef uint32_t serial
    cdef uint32_t sequence
    cdef int64_t expected
    """Where the next packet should begin, as the stream's own pages count."""
    cdef int64_t base
    """What is added to that, so that positions go on over chained streams."""
    cdef Py_ssize_t noise
    cdef int bad_here
    cdef readonly int pre_skip
    """Samples at the beginning of the newest stream that are not to be heard."""
    cdef readonly int channels
    cdef readonly int streams
    """Opus streams met."""
    cdef readonly int joined_midway
    cdef readonly Py_ssize_t pages
    """Good pages of Opus streams."""
    cdef readonly Py_ssize_t bad_pages
    """Pages whose checksum or version is wrong."""
    cdef readonly Py_ssize_t missing_pages
    """Pages that were to come between two others of the same stream."""
    cdef readonly Py_ssize_t foreign_pages
    """Good pages of other streams."""
    cdef readonly Py_ssize_t skipped_bytes
    """Bytes that belong to no page."""
    cdef readonly Py_ssize_t broken_packets
    """Packets left out: a part of them is missing, or they are too long, or empty."""

    def __cinit__(self):
        self.channels = 1

    def __dealloc__(self):
        free(self.held)
        free(self.partial)

    @property
    def faults(self):
        """Pages and packets that are missing, damaged or broken off."""
        return self.bad_pages + self.missing_pages + self.broken_packets

    @property
    def pending_bytes(self):
        """Bytes held until their page is whole."""
        return self.held_bytes

    def feed(self, bytes data not None):
        """The packets that this piece completes, as ``(position, packet)`` in order.

        ``position`` is where a packet's sound begins, counted from the first sample that is to be
        heard: the first packets may lie before it. It jumps ahead where something is missing.
        Raises ``OggError`` when there is no Opus here; the object is of no use after that.
        """
        cdef list packets = []
        cdef const unsigned char *place = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t used, taken
        self.bad_here = 0
        while size:
            if not self.held_bytes:
                used = self._read(place, size, packets)
                self._hold(place + used, size - used)
                return packets
            # Little more than a page is ever held, however much comes at once.
            taken = min(size, 4096)
            self._hold(place, taken)
            place += taken
            size -= taken
            used = self._read(self.held, self.held_bytes, packets)
            self.held_bytes -= used
            memmove(self.held, self.held + used, self.held_bytes)
        if not self.held_bytes and self.held_room > 4096:
            free(self.held)
            self.held = NULL
            self.held_room = 0
        return packets

    def lost(self):
        """A piece of the stream is missing before the next one that is fed."""
        self.held_bytes = 0

    cdef int _hold(self, const unsigned char *data, Py_ssize_t size) except -1:
        if size:
            self.held = _grown(self.held, &self.held_room, self.held_bytes + size)
            memcpy(self.held + self.held_bytes, data, size)
            self.held_bytes += size
        return 0

    cdef Py_ssize_t _read(
            self, const unsigned char *data, Py_ssize_t size, list packets) except -1:
        """Take the whole pages in ``data``; returns how much of it is done with."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t page_bytes
        cdef Py_ssize_t start
        while True:
            start = _find_capture(data, at, size)
            self._skip(start - at)
            at = start
            page_bytes = _page_size(data + at, size - at)
            if page_bytes == 0 or page_bytes > size - at:
                return at
            if data[at + 4] != 0 or (
                    _page_crc(data + at, page_bytes) != <uint32_t>_little(data + at + 22, 4)):
                self._count_bad()
                # The length may be what is wrong: the next page may begin inside this one.
                self._skip(4)
                at += 4
                continue
            self.noise = 0
            self._page(data + at, packets)
            at += page_bytes

    cdef int _skip(self, Py_ssize_t size) except -1:
        self.skipped_bytes += size
        self.noise += size
        if self.noise > MOST_NOISE:
            raise OggError(f"no Ogg page in {self.noise} bytes")
        return 0

    cdef int _count_bad(self) except -1:
        self.bad_pages += 1
        self.bad_here += 1
        if self.bad_here > MOST_BAD_IN_A_PIECE or (
                self.bad_pages > MOST_BAD + (self.pages + self.foreign_pages) // 4):
            raise OggError(f"{self.bad_pages} Ogg pages are damaged")
        return 0

    cdef int _page(self, const unsigned char *page, list packets) except -1:
        cdef int flags = page[5]
        cdef uint32_t serial = <uint32_t>_little(page + 14, 4)
        cdef uint32_t sequence = <uint32_t>_little(page + 18, 4)
        cdef int segments = page[26]
        cdef const unsigned char *body = page + HEADER_BYTES + segments
        cdef Py_ssize_t size = 0
        cdef int index
        if flags & BEGINNING:
            self.saw_beginning = True
            for index in range(segments):
                size += page[HEADER_BYTES + index]
            if not self._begins(body, size):
                self.foreign_pages += 1
                return 0
            self.serial, self.sequence = serial, sequence
            self.pages += 1
            return 0
        if not self.has_stream and not self.ended:
            if self.saw_beginning:
                raise OggError("the Ogg streams here are not Opus")
            self.joined_midway += 1
            self._open(0, 1)
            self.serial, self.sequence = serial, sequence - 1
            self.partial_bytes = -1
            self.expected = INT64_MIN
        if not self.has_stream or serial != self.serial:
            self.foreign_pages += 1
            return 0
        if sequence != self.sequence + 1:
            if sequence - self.sequence < 0x80000000u:
                self.missing_pages += sequence - self.sequence - 1
            if self.partial_bytes > 0:
                self.broken_packets += 1
            self.partial_bytes = -1
        self.sequence = sequence
        self.pages += 1
        self._packets(page, body, segments, flags, packets)
        if flags & END:
            self.has_stream = False
            self.ended = True
        return 0

    cdef bint _begins(self, const unsigned char *head, Py_ssize_t size) except -1:
        """Open the stream of a first page; False if it is none of ours."""
        cdef int family
        if size < 19 or memcmp(head, b"OpusHead", 8):
            return False
        family = head[18]
        if head[8] >> 4 or not head[9]:
            raise OggError(f"OpusHead of version {head[8]} with {head[9]} channels")
        if family and (size < 21 or head[19] != 1 or head[9] > 2):
            raise OggError(f"Opus with {head[9]} channels in several streams; send mono or stereo")
        self._open(<int>_little(head + 10, 2), head[9])
        return True

    cdef int _open(self, int pre_skip, int channels) except -1:
        if self.heard:
            self.base += self.expected
        self.has_stream = True
        self.ended = False
        self.heard = False
        self.awaits_tags = True
        self.in_tags = False
        self.partial_bytes = 0
        self.pre_skip = pre_skip
        self.channels = channels
        self.expected = -pre_skip
        self.streams += 1
        return 0

    cdef int _packets(
            self, const unsigned char *page, const unsigned char *body, int segments, int flags,
            list packets) except -1:
        cdef const unsigned char *lacing = page + HEADER_BYTES
        cdef const unsigned char *packet = body
        cdef int64_t granule = <int64_t>_little(page + 6, 8)
        cdef Py_ssize_t first = len(packets)
        cdef Py_ssize_t size = 0
        cdef int64_t total = 0
        cdef int index
        cdef bytes whole
        if flags & CONTINUED:
            if self.partial_bytes == 0:
                self.partial_bytes = -1
                self.broken_packets += self.heard
        elif self.partial_bytes:
            # What was to go on does not.
            self.broken_packets += self.partial_bytes > 0
            self.partial_bytes = 0
            self.in_tags = False
        for index in range(segments):
            size += lacing[index]
            if lacing[index] == 255:
                continue
            whole = self._whole(packet, size)
            if whole is not None:
                total += packet_samples(
                    <const unsigned char *>PyBytes_AS_STRING(whole), PyBytes_GET_SIZE(whole))
                packets.append(whole)
            packet += size
            size = 0
        if size:
            self._keep(packet, size)
        if len(packets) > first:
            self._place(packets, first, total, granule, flags & END)
        return 0

    cdef bytes _whole(self, const unsigned char *data, Py_ssize_t size):
        """The packet that ends with these bytes; None if it is not audio, or not whole."""
        cdef bytes packet
        cdef Py_ssize_t before = self.partial_bytes
        self.partial_bytes = 0
        if self.in_tags:
            self.in_tags = False
            return None
        if before < 0:
            return None
        if self.awaits_tags:
            self.awaits_tags = False
            if not before and size >= 8 and not memcmp(data, b"OpusTags", 8):
                return None
        if before + size == 0 or before + size > MAX_PACKET_BYTES:
            self.broken_packets += 1
            return None
        if not before:
            return PyBytes_FromStringAndSize(<const char *>data, size)
        packet = PyBytes_FromStringAndSize(NULL, before + size)
        memcpy(PyBytes_AS_STRING(packet), self.partial, before)
        memcpy(PyBytes_AS_STRING(packet) + before, data, size)
        return packet

    cdef int _keep(self, const unsigned char *data, Py_ssize_t size) except -1:
        """Keep the part of a packet that a page ends with."""
        if self.partial_bytes < 0:
            return 0
        if self.awaits_tags:
            self.awaits_tags = False
            if size >= 8 and not memcmp(data, b"OpusTags", 8):
                self.in_tags = True
        if self.in_tags:
            self.partial_bytes = -1
        elif self.partial_bytes + size > MAX_PACKET_BYTES:
            self.partial_bytes = -1
            self.broken_packets += 1
        else:
            self.partial = _grown(self.partial, &self.partial_room, self.partial_bytes + size)
            memcpy(self.partial + self.partial_bytes, data, size)
            self.partial_bytes += size
        return 0

    cdef int _place(
            self, list packets, Py_ssize_t first, int64_t total, int64_t granule,
            bint last_page) except -1:
        """Give the packets from ``first`` on their positions, by where the page's sound ends."""
        cdef int64_t at = self.expected
        cdef int64_t end = granule - self.pre_skip
        cdef bint is_known = 0 <= granule < (<int64_t>1 << 62)
        cdef Py_ssize_t index
        cdef bytes packet
        if at == INT64_MIN:
            at = end - total if is_known else 0
        elif is_known and 0 < end - total - at < MOST_JUMP:
            at = end - total
        self.heard = True
        for index in range(first, len(packets)):
            packet = <bytes>packets[index]
            if last_page and is_known and end <= at and index > first:
                # End trimming (RFC 7845 section 4.4), as far as whole packets go.
                del packets[index:]
                break
            packets[index] = (self.base + at, packet)
            at += packet_samples(
                <const unsigned char *>PyBytes_AS_STRING(packet), PyBytes_GET_SIZE(packet))
        self.expected = at
        return 0


cdef unsigned char *_grown(
        unsigned char *room, Py_ssize_t *size, Py_ssize_t wanted) except NULL:
    """``room`` with space for so many bytes."""
    if wanted > size[0]:
        wanted += 1024
        room = <unsigned char *>realloc(room, wanted)
        if room is NULL:
            raise MemoryError
        size[0] = wanted
    return room


cdef Py_ssize_t _find_capture(
        const unsigned char *data, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Where the next ``OggS`` begins from ``at`` on, or what may become one at the end."""
    cdef const unsigned char *found
    while at < size:
        found = <const unsigned char *>memchr(data + at, b"O", size - at)
        if found is NULL:
            return size
        at = found - data
        if memcmp(found, b"OggS", min(4, size - at)) == 0:
            return at
        at += 1
    return size


cdef Py_ssize_t _page_size(const unsigned char *page, Py_ssize_t size) noexcept nogil:
    """Length of a page by its header; 0 when the header is not whole."""
    cdef Py_ssize_t length
    cdef int index
    if size < HEADER_BYTES or size < HEADER_BYTES + page[26]:
        return 0
    length = HEADER_BYTES + page[26]
    for index in range(page[26]):
        length += page[HEADER_BYTES + index]
    return length


@cython.final
cdef class Muxer:
    """Writes one logical stream: ``headers()`` first, then pages of whole packets.

    ``channels`` is what a player is told; positions are counted by the packets' own lengths.
    """

    cdef uint32_t serial
    cdef uint32_t sequence
    cdef int64_t granule
    cdef int channels
    cdef int pre_skip

    def __cinit__(self, unsigned int serial, int channels=1, *, int pre_skip=0):
        if channels not in (1, 2) or not 0 <= pre_skip < 65536:
            raise ValueError(f"channels={channels}, pre_skip={pre_skip}: 1 or 2, and 0 to 65535")
        self.serial = serial
        self.channels = channels
        self.pre_skip = pre_skip

    def headers(self):
        """The pages of OpusHead and OpusTags (RFC 7845 section 5)."""
        head = b"OpusHead\x01%c%b\x80\xbb\x00\x00\x00\x00\x00" % (
            self.channels, self.pre_skip.to_bytes(2, "little"))
        vendor = b"edgescribe"
        tags = b"OpusTags%b%b\x00\x00\x00\x00" % (len(vendor).to_bytes(4, "little"), vendor)
        first = self._write([head], BEGINNING, False)
        return first + self._write([tags], 0, False)

    def pages(self, list packets not None, *, bint last=False):
        """Pages that hold these packets, the last one full or not; ``last`` ends the stream."""
        return self._write(packets, END if last else 0, True)

    cdef bytes _write(self, list packets, int flags, bint audio):
        """``flags`` of BEGINNING go to the first page, END to the last."""
        cdef bytes packet
        cdef Py_ssize_t segments = 0
        cdef Py_ssize_t body = 0
        cdef Py_ssize_t pages, size, at
        for packet in packets:
            if packet is None:
                raise TypeError("packets are bytes")
            segments += PyBytes_GET_SIZE(packet) // 255 + 1
            body += PyBytes_GET_SIZE(packet)
        pages = (segments + 254) // 255 or (1 if flags & END else 0)
        cdef bytes out = PyBytes_FromStringAndSize(NULL, pages * HEADER_BYTES + segments + body)
        cdef unsigned char *page = <unsigned char *>PyBytes_AS_STRING(out)
        cdef unsigned char *place
        cdef unsigned char *lacing
        cdef Py_ssize_t number = 0
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t count, part
        cdef Py_ssize_t index
        cdef int64_t granule
        cdef int kind
        for index in range(pages):
            count = min(255, segments - 255 * index)
            kind = CONTINUED if done else 0
            if index == 0:
                kind |= flags & BEGINNING
            if index == pages - 1:
                kind |= flags & END
            granule = -1 if count else self.granule
            lacing = page + HEADER_BYTES
            place = lacing + count
            at = 0
            while at < count:
                packet = <bytes>packets[number]
                size = PyBytes_GET_SIZE(packet)
                part = min(255, size - done)
                memcpy(place, PyBytes_AS_STRING(packet) + done, part)
                lacing[at] = <unsigned char>part
                place += part
                done += part
                at += 1
                if part < 255:
                    if audio:
                        self.granule += packet_samples(
                            <const unsigned char *>PyBytes_AS_STRING(packet), size)
                    granule = self.granule
                    number += 1
                    done = 0
            self._head(page, place - page, kind, granule, <int>count)
            page = place
        return out

    cdef int _head(
            self, unsigned char *page, Py_ssize_t size, int kind, int64_t granule,
            int count) except -1:
        memcpy(page, b"OggS\0", 5)
        page[5] = <unsigned char>kind
        _put_little(page + 6, <uint64_t>granule, 8)
        _put_little(page + 14, self.serial, 4)
        _put_little(page + 18, self.sequence, 4)
        page[26] = <unsigned char>count
        _put_little(page + 22, _page_crc(page, size), 4)
        self.sequence += 1
        return 0
