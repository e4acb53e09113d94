"""Opus in WebM (RFC 8794, RFC 9559) as browsers record it: a stream of elements cut anyhow.

Positions count 48 kHz samples. Segments and clusters may be of unknown size, blocks laced or not;
indexes, tags and other tracks are passed over unread. An object belongs to one thread at a time.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove

from _native.toc cimport packet_samples

cdef enum:
    EBML = 0x1A45DFA3
    SEGMENT = 0x18538067
    INFO = 0x1549A966
    TIMESTAMP_SCALE = 0x2AD7B1
    TRACKS = 0x1654AE6B
    TRACK_ENTRY = 0xAE
    TRACK_NUMBER = 0xD7
    CODEC_ID = 0x86
    CODEC_PRIVATE = 0x63A2
    CODEC_DELAY = 0x56AA
    CONTENT_ENCODINGS = 0x6D80
    CLUSTER = 0x1F43B675
    TIMESTAMP = 0xE7
    SIMPLE_BLOCK = 0xA3
    BLOCK_GROUP = 0xA0
    BLOCK = 0xA1

cdef enum:
    # Elements that are read whole.
    MAX_ELEMENT_BYTES = 1 << 16
    # A block of another track.
    MAX_FOREIGN_BYTES = 1 << 24
    # Bytes without the beginning of anything known.
    MOST_NOISE = 1 << 17
    # Recorders stamp blocks with the time of capture, which trembles: so little is no gap.
    TOLERANCE = 48 * 40

cdef enum Outcome:
    TAKEN
    WAITS
    DAMAGED


class WebmError(Exception):
    """The bytes are no WebM with Opus in it; ``str()`` says what they are. Nothing will help."""


ctypedef const unsigned char *Place

cdef struct Element:
    uint32_t id
    # -1: unknown.
    int64_t size
    # Bytes of id and size; 0: not all of them are there.
    Py_ssize_t header


cdef Element _element(Place data, Py_ssize_t room, bint *damaged) noexcept nogil:
    """The id and size at ``data``."""
    cdef Element element
    cdef int id_bytes = 1
    cdef int size_bytes = 1
    cdef int index
    cdef uint64_t size
    element.id = 0
    element.size = 0
    element.header = 0
    if room < 1:
        return element
    while id_bytes <= 4 and not data[0] & 0x100 >> id_bytes:
        id_bytes += 1
    if id_bytes > 4:
        damaged[0] = True
        return element
    if room <= id_bytes:
        return element
    for index in range(id_bytes):
        element.id = element.id << 8 | data[index]
    while size_bytes <= 8 and not data[id_bytes] & 0x100 >> size_bytes:
        size_bytes += 1
    if size_bytes > 8:
        damaged[0] = True
        return element
    if room < id_bytes + size_bytes:
        return element
    size = data[id_bytes] & 0xFF >> size_bytes
    for index in range(1, size_bytes):
        size = size << 8 | data[id_bytes + index]
    element.header = id_bytes + size_bytes
    element.size = -1 if size == (<uint64_t>1 << 7 * size_bytes) - 1 else <int64_t>size
    return element


cdef uint64_t _number(Place data, int64_t size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int64_t index
    for index in range(min(size, 8)):
        value = value << 8 | data[index]
    return value


cdef int _vint(Place data, Py_ssize_t room, uint64_t *value) noexcept nogil:
    """Bytes of the variable-size number at ``data``; 0 if it is cut off or none."""
    cdef int size = 1
    cdef int index
    if room < 1:
        return 0
    while size <= 8 and not data[0] & 0x100 >> size:
        size += 1
    if size > 8 or size > room:
        return 0
    value[0] = data[0] & 0xFF >> size
    for index in range(1, size):
        value[0] = value[0] << 8 | data[index]
    return size


@cython.final
cdef class Demuxer:
    """Takes a stream of WebM bytes in pieces and gives the packets of its first Opus track.

    A second header begins a new stream, whose positions go on where the first ended. Without a
    header it begins at the next cluster, with that one's first track: the sender was joined
    midway. Damage is passed over up to the next cluster. Memory: one element of at most 64 KiB.
    """

    cdef unsigned char *held
    cdef Py_ssize_t held_bytes
    cdef Py_ssize_t held_room
    cdef int64_t to_skip
    """Bytes of an element that is passed over."""
    cdef bint is_lost
    """Whether the next element must be looked for."""
    cdef uint64_t track
    """Number of the Opus track; 0: the first that comes."""
    cdef uint64_t cluster_time
    cdef double ticks
    """48 kHz samples of one unit of the timestamps."""
    cdef int64_t delay
    cdef int64_t base
    cdef int64_t expected
    cdef bint heard
    cdef Py_ssize_t noise
    cdef readonly int pre_skip
    """Samples at the beginning of the newest stream that are not to be heard."""
    cdef readonly int channels
    cdef readonly int streams
    cdef readonly int joined_midway
    cdef readonly Py_ssize_t blocks
    cdef readonly Py_ssize_t foreign_blocks
    """Blocks of other tracks."""
    cdef readonly Py_ssize_t broken_blocks
    """Blocks too short or too long, or whose lacing leads out of them."""
    cdef readonly Py_ssize_t resyncs
    """Times that damage was met, or a piece was missing."""
    cdef readonly Py_ssize_t skipped_bytes
    """Bytes between which and the next cluster nothing could be made out."""

    def __cinit__(self):
        self.is_lost = True
        self.channels = 1
        self.ticks = 48.0

    def __dealloc__(self):
        free(self.held)

    @property
    def faults(self):
        """Blocks that are broken, and times that the next cluster had to be looked for."""
        return self.broken_blocks + self.resyncs

    @property
    def pending_bytes(self):
        """Bytes held until their element is whole."""
        return self.held_bytes

    def feed(self, bytes data not None):
        """The packets that this piece completes, as ``(position, packet)`` in order.

        ``position`` is where a packet's sound begins, counted from the first sample that is to be
        heard: the first packets may lie before it. It jumps ahead where the recorder paused.
        Raises ``WebmError`` when there is no Opus here; the object is of no use after that.
        """
        cdef list packets = []
        cdef Place place = <Place>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t used, taken
        while size:
            if not self.held_bytes:
                used = self._read(place, size, packets)
                self._hold(place + used, size - used)
                return packets
            # Little more than an element is ever held, however much comes at once.
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
        self.to_skip = 0
        self.is_lost = True
        self.resyncs += 1

    cdef int _hold(self, Place data, Py_ssize_t size) except -1:
        cdef unsigned char *room
        cdef Py_ssize_t wanted = self.held_bytes + size
        if not size:
            return 0
        if wanted > self.held_room:
            wanted += 1024
            room = <unsigned char *>realloc(self.held, wanted)
            if room is NULL:
                raise MemoryError
            self.held = room
            self.held_room = wanted
        memcpy(self.held + self.held_bytes, data, size)
        self.held_bytes += size
        return 0

    cdef Py_ssize_t _read(self, Place data, Py_ssize_t size, list packets) except -1:
        """Take the whole elements in ``data``; returns how much of it is done with."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t found
        cdef Py_ssize_t before
        cdef int64_t skipped
        cdef Outcome outcome
        while at < size:
            if self.to_skip:
                skipped = min(self.to_skip, <int64_t>(size - at))
                self.to_skip -= skipped
                at += <Py_ssize_t>skipped
                continue
            if self.is_lost:
                found = _find_beginning(data, at, size)
                self._skip(found - at)
                at = found
                if size - at < 4:
                    return at
                self.is_lost = False
            before = at
            outcome = self._element(data, &at, size, packets)
            if outcome == WAITS:
                return before
            if outcome == DAMAGED:
                self.is_lost = True
                self.resyncs += 1
                self._skip(1)
                at = before + 1
        return at

    cdef int _skip(self, Py_ssize_t size) except -1:
        self.skipped_bytes += size
        self.noise += size
        if self.noise > MOST_NOISE:
            raise WebmError(f"no WebM cluster in {self.noise} bytes")
        return 0

    cdef Outcome _element(
            self, Place data, Py_ssize_t *at, Py_ssize_t size, list packets) except *:
        """Read the element at ``at`` and move behind it, or behind its header to what it holds."""
        cdef bint damaged = False
        cdef Element element = _element(data + at[0], size - at[0], &damaged)
        cdef Place body
        cdef Py_ssize_t room
        if damaged:
            return DAMAGED
        if not element.header:
            return WAITS
        body = data + at[0] + element.header
        room = size - at[0] - element.header
        if element.id in (SEGMENT, CLUSTER, BLOCK_GROUP):
            if element.id == CLUSTER:
                self.cluster_time = 0
            at[0] += element.header
            return TAKEN
        if element.size < 0:
            return DAMAGED
        if element.id in (SIMPLE_BLOCK, BLOCK):
            if element.size > MAX_FOREIGN_BYTES:
                return DAMAGED
            if room < min(element.size, 12):
                return WAITS
            if not self._is_ours(body, element.size):
                self.foreign_blocks += 1
                return self._pass_over(element, at)
            if element.size > MAX_ELEMENT_BYTES:
                self.broken_blocks += 1
                return self._pass_over(element, at)
        elif element.size > MAX_ELEMENT_BYTES:
            return DAMAGED
        elif element.id not in (INFO, TRACKS, TIMESTAMP):
            if element.id == EBML:
                self._begin()
            return self._pass_over(element, at)
        if room < element.size:
            return WAITS
        at[0] += element.header + <Py_ssize_t>element.size
        if element.id == TIMESTAMP:
            self.cluster_time = _number(body, element.size)
        elif element.id == INFO:
            self._info(body, <Py_ssize_t>element.size)
        elif element.id == TRACKS:
            self._tracks(body, <Py_ssize_t>element.size)
        else:
            self._block(body, <Py_ssize_t>element.size, packets)
        return TAKEN

    cdef Outcome _pass_over(self, Element element, Py_ssize_t *at) except *:
        at[0] += element.header
        self.to_skip = element.size
        return TAKEN

    cdef int _begin(self) except -1:
        """A header: what follows is a stream of its own."""
        if self.heard:
            self.base += self.expected
        self.heard = False
        self.track = 0
        self.ticks = 48.0
        self.delay = 0
        self.pre_skip = 0
        return 0

    cdef int _info(self, Place data, Py_ssize_t size) except -1:
        cdef Element element
        cdef bint damaged = False
        cdef uint64_t scale_ns
        while True:
            element = _element(data, size, &damaged)
            if damaged or not element.header or not 0 <= element.size <= size - element.header:
                return 0
            if element.id == TIMESTAMP_SCALE:
                scale_ns = _number(data + element.header, element.size)
                if 0 < scale_ns <= 1000000000:
                    self.ticks = <double>scale_ns * 48 / 1000000
            data += element.header + element.size
            size -= element.header + element.size

    cdef int _tracks(self, Place data, Py_ssize_t size) except -1:
        """Find the first Opus track. Raises ``WebmError`` when there is none."""
        cdef Element element
        cdef bint damaged = False
        cdef list others = []
        while True:
            element = _element(data, size, &damaged)
            if damaged or not element.header or not 0 <= element.size <= size - element.header:
                break
            if element.id == TRACK_ENTRY and self._track(
                    data + element.header, <Py_ssize_t>element.size, others):
                return 0
            data += element.header + element.size
            size -= element.header + element.size
        raise WebmError(f"no Opus track here; the tracks are: {', '.join(others) or 'none'}")

    cdef bint _track(self, Place data, Py_ssize_t size, list others) except -1:
        cdef Element element
        cdef bint damaged = False
        cdef uint64_t number = 0
        cdef uint64_t delay_ns = 0
        cdef bint has_delay = False
        cdef bint is_coded = False
        cdef bytes codec = b""
        cdef bytes head = b""
        while True:
            element = _element(data, size, &damaged)
            if damaged or not element.header or not 0 <= element.size <= size - element.header:
                break
            data += element.header
            if element.id == TRACK_NUMBER:
                number = _number(data, element.size)
            elif element.id == CODEC_ID:
                codec = data[:min(element.size, 32)]
            elif element.id == CODEC_PRIVATE:
                head = data[:min(element.size, 64)]
            elif element.id == CODEC_DELAY:
                delay_ns = _number(data, element.size)
                has_delay = delay_ns < 1000000000
            elif element.id == CONTENT_ENCODINGS:
                is_coded = True
            data += element.size
            size -= element.header + element.size
        if codec.rstrip(b"\0") != b"A_OPUS" or not number:
            others.append(codec.decode("ascii", "replace"))
            return False
        if is_coded:
            raise WebmError("the Opus track is compressed or encrypted")
        channels, pre_skip = _opus_head(head)
        self.channels = channels
        self.pre_skip = pre_skip
        self.delay = <int64_t>(delay_ns * 48 // 1000000) if has_delay else pre_skip
        self.track = number
        self.streams += 1
        return True

    cdef bint _is_ours(self, Place block, int64_t size) except -1:
        cdef uint64_t number = 0
        if not _vint(block, <Py_ssize_t>size, &number):
            return True
        return not self.track or number == self.track

    cdef int _block(self, Place block, Py_ssize_t size, list packets) except -1:
        """Take a block: track number, time relative to the cluster's, flags, frames."""
        cdef Py_ssize_t[256] sizes
        cdef uint64_t number = 0
        cdef int used = _vint(block, size, &number)
        cdef int frames, index
        cdef int relative
        cdef double time
        cdef Place frame
        cdef Place end = block + size
        if not used or size < used + 4:
            self.broken_blocks += 1
            return 0
        relative = (block[used] ^ 0x80) * 256 + block[used + 1] - 0x8000
        frame = block + used + 3
        frames = _lacing(&frame, end, block[used + 2] >> 1 & 3, sizes)
        time = (<double>self.cluster_time + relative) * self.ticks
        if not frames or not number or time > 1e15:
            self.broken_blocks += 1
            return 0
        if not self.track:
            self.joined_midway += 1
            self.streams += 1
            self.track = number
        self.blocks += 1
        self.noise = 0
        self._settle(<int64_t>(time + 0.5) - self.delay)
        for index in range(frames):
            if sizes[index]:
                packets.append((
                    self.base + self.expected,
                    PyBytes_FromStringAndSize(<const char *>frame, sizes[index])))
                self.expected += packet_samples(frame, sizes[index])
            frame += sizes[index]
        return 0

    cdef int _settle(self, int64_t position) except -1:
        """The next packet is at ``position``, or where the one before ended if that is near."""
        cdef int64_t ahead = position - self.expected
        if not self.heard or ahead > TOLERANCE or ahead < -TOLERANCE:
            self.expected = position
        self.heard = True
        return 0


cdef tuple _opus_head(bytes head):
    """Channels and pre-skip of a CodecPrivate. Raises ``WebmError`` for what is not mono or stereo.

    Some recorders leave it out.
    """
    if not head:
        return 1, 0
    if len(head) < 19 or not head.startswith(b"OpusHead"):
        raise WebmError("the Opus track has no OpusHead")
    channels, family = head[9], head[18]
    if not 1 <= channels <= 2 or (family and (len(head) < 21 or head[19] != 1)):
        raise WebmError(f"Opus with {channels} channels in several streams; send mono or stereo")
    return channels, int.from_bytes(head[10:12], "little")


cdef int _lacing(Place *data, Place end, int kind, Py_ssize_t *sizes) noexcept nogil:
    """Sizes of a block's frames (RFC 9559 section 10.3); moves to the first. 0: they lead out."""
    cdef Place at = data[0]
    cdef Py_ssize_t total = 0
    cdef uint64_t value = 0
    cdef int64_t size = 0
    cdef int frames = 1
    cdef int index, used
    if kind:
        if at >= end:
            return 0
        frames = at[0] + 1
        at += 1
    for index in range(frames - 1):
        if kind == 1:
            size = 0
            while at < end and at[0] == 255:
                size += 255
                at += 1
            if at >= end:
                return 0
            size += at[0]
            at += 1
        elif kind == 3:
            used = _vint(at, end - at, &value)
            if not used or value >= <uint64_t>1 << 40:
                return 0
            # The first is a size, the others are differences around the middle of their range.
            size = <int64_t>value if index == 0 else (
                size + <int64_t>value - ((<int64_t>1 << (7 * used - 1)) - 1))
            at += used
        else:
            size = (end - at) // frames
        if size < 0 or size > end - at:
            return 0
        sizes[index] = <Py_ssize_t>size
        total += <Py_ssize_t>size
    if total > end - at:
        return 0
    sizes[frames - 1] = (end - at) - total
    if kind == 2 and (end - at) % frames:
        return 0
    data[0] = at
    return frames


cdef Py_ssize_t _find_beginning(Place data, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Where a header or cluster begins from ``at`` on, or may begin at the end."""
    while at < size:
        if (memcmp(data + at, b"\x1F\x43\xB6\x75", min(4, size - at)) == 0
                or memcmp(data + at, b"\x1A\x45\xDF\xA3", min(4, size - at)) == 0):
            return at
        at += 1
    return size
