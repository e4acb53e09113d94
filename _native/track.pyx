"""The short way of a packet through its track: next in order, on time, kept for who plays it.

A packet with the number and the time that are expected next needs no thought, and nearly every
packet is one. It is checked, counted, timed and kept here without a Python object of its own but
its payload. Every other packet is declined, unchanged: ``edge.audio.sequencer`` knows what to do.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t

from _native cimport libopus

cdef enum:
    # RFC 6716 section 3.2.5: at most 48 frames in a packet.
    MAX_FRAMES = 48
    SAMPLES_PER_MS = 48
    # Payloads up to this size are a sender's way to say that it is silent (DTX).
    DTX_BYTES = 2
    LEAST_ROOM = 16
    # What may wait to be played before a ring is crowded; never more than half of it.
    MOST_UNPLAYED_MS = 5000

cdef enum Kind:
    OTHER
    PACKET
    PCM

NEVER = INT64_MAX
"""A ``due`` that no track reaches."""


cdef class TrackStats:
    """Totals of one track; ``edge.audio.stats`` says what each counts."""

    def __eq__(self, other):
        if not isinstance(other, TrackStats):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in STATS_FIELDS)

    def __repr__(self):
        counts = ", ".join(f"{name}={getattr(self, name)}" for name in STATS_FIELDS)
        return f"TrackStats({counts})"


STATS_FIELDS = tuple(name for name in vars(TrackStats) if not name.startswith("_"))


cdef int packet_samples(const unsigned char *packet, Py_ssize_t size) noexcept nogil:
    """48 kHz samples of an Opus packet, which is checked whole; 0 for what a decoder refuses."""
    cdef const unsigned char *frames[MAX_FRAMES]
    cdef short frame_bytes[MAX_FRAMES]
    cdef int count
    if size == 0 or size > 0x7FFFFFFF:
        return 0
    count = libopus.opus_packet_parse(packet, <int>size, NULL, frames, frame_bytes, NULL)
    if count < 0:
        return 0
    return count * libopus.opus_packet_get_samples_per_frame(packet, 48000)


cdef bint _is(object number, int64_t value) except -1:
    """Whether a Python integer, perhaps None, is this value."""
    cdef int overflow
    if number is None:
        return False
    return PyLong_AsLongLongAndOverflow(number, &overflow) == value and not overflow


cdef class StepRing:
    """Steps since the last final, at most ``limit_ms`` of them; the oldest make room.

    Steps are numbered from the track's first on. Kept are packets, as their payload, and anything
    else, with a length in 48 kHz samples each. The ring also knows how far any feed has ever
    played, so that each packet is counted once: when first played, or when it leaves unplayed.
    ``unplayed`` is how much no feed has come to yet, in samples.
    """

    def __cinit__(self, int64_t limit_ms, TrackStats stats not None):
        self._limit = limit_ms * SAMPLES_PER_MS
        self._crowd = min(self._limit // 2, <int64_t>MOST_UNPLAYED_MS * SAMPLES_PER_MS)
        self.stats = stats
        self._resize(LEAST_ROOM)

    def __dealloc__(self):
        while self.first < self.count:
            Py_DECREF(<object>self._entries[self.first & (self._room - 1)].thing)
            self.first += 1
        PyMem_Free(self._entries)

    @property
    def unplayed_packets(self):
        """Packets here that no feed has played yet."""
        cdef int64_t number
        cdef int64_t unplayed = 0
        for number in range(max(self._played, self.first), self.count):
            unplayed += self._entries[number & (self._room - 1)].kind != OTHER
        return unplayed

    @property
    def crowding(self):
        """What waits to be played, as a share of what may; from 1.0 on more is unwelcome."""
        return self.unplayed / <double>self._crowd

    cdef bint crowded(self) noexcept:
        return self.unplayed >= self._crowd

    def put_packet(self, bytes payload not None, int samples):
        """Keep a packet; drop the oldest steps if that makes too many."""
        self._put(<PyObject *>payload, samples, PACKET)

    def put_other(self, object step, int samples, bint is_pcm):
        """Keep anything else; ``is_pcm`` says that it brings sound as a packet does."""
        self._put(<PyObject *>step, samples, PCM if is_pcm else OTHER)

    def at(self, int64_t number):
        """``(samples, payload, other)`` of a step from ``first`` to ``count`` - 1.

        ``payload`` is None for what is not a packet, ``other`` for what is.
        """
        if not self.first <= number < self.count:
            raise IndexError(f"step {number} is not among {self.first} to {self.count - 1}")
        cdef Entry *entry = &self._entries[number & (self._room - 1)]
        if entry.kind == PACKET:
            return entry.samples, <object>entry.thing, None
        return entry.samples, None, <object>entry.thing

    def packets(self, int64_t number, int64_t samples):
        """``(payloads, their samples)`` of the packets from step ``number`` on, without a break.

        No more than it takes to make so many samples; none if that step is something else.
        """
        cdef list payloads = []
        cdef int64_t total = 0
        cdef Entry *entry
        if number < self.first:
            raise IndexError(f"step {number} is gone, {self.first} is the oldest")
        while number < self.count and total < samples:
            entry = &self._entries[number & (self._room - 1)]
            if entry.kind != PACKET:
                break
            payloads.append(<object>entry.thing)
            total += entry.samples
            number += 1
        return payloads, total

    def forget(self, int64_t until):
        """Drop the steps that end at or before this position."""
        while (
            self.first < self.count
            and self.start + self._entries[self.first & (self._room - 1)].samples <= until
        ):
            self._drop()

    def find(self, int64_t position):
        """Number and position of the step that holds ``position``, or of the nearest one kept."""
        cdef int64_t number = self.count
        cdef int64_t start = self.end
        while start > position and number > self.first:
            number -= 1
            start -= self._entries[number & (self._room - 1)].samples
        return number, start

    def mark(self, int64_t number, bint is_packet, bint sound):
        """Count a step the first time a feed plays it; ``sound`` says its payload was decoded."""
        self._mark(number, is_packet, sound)

    def mark_run(self, int64_t number, int64_t packets):
        """Count so many packets from ``number`` on, which were all played with sound."""
        cdef int64_t stop = number + packets
        while number < stop:
            self._mark(number, True, True)
            number += 1

    cdef void _mark(self, int64_t number, bint is_packet, bint sound) noexcept:
        cdef int64_t passed_over
        cdef Entry *entry
        if number < self._played:
            return
        for passed_over in range(max(self._played, self.first), number):
            entry = &self._entries[passed_over & (self._room - 1)]
            self.stats.unplayed += entry.kind != OTHER
            self.unplayed -= entry.samples
        if number >= self.first:
            self.unplayed -= self._entries[number & (self._room - 1)].samples
        self._played = number + 1
        if is_packet and sound:
            self.stats.decoded += 1
        elif is_packet:
            self.stats.corrupt += 1

    cdef int _put(self, PyObject *thing, int samples, int kind) except -1:
        cdef Entry *entry
        cdef bint unplayed
        cdef int dropped
        if self.count - self.first == self._room:
            self._resize(2 * self._room)
        entry = &self._entries[self.count & (self._room - 1)]
        Py_INCREF(<object>thing)
        entry.thing = thing
        entry.samples = samples
        entry.kind = kind
        self.count += 1
        self.end += samples
        self.unplayed += samples
        while self.end - self.start > self._limit:
            unplayed = self._played <= self.first
            dropped = self._drop()
            if unplayed:
                self._overflow += dropped
                self.stats.overflow_dropped_ms = self._overflow // SAMPLES_PER_MS
        return 0

    cdef int _drop(self) except -1:
        """Let the oldest step go; returns its samples."""
        cdef Entry *entry = &self._entries[self.first & (self._room - 1)]
        cdef int samples = entry.samples
        if self.first >= self._played:
            self.stats.unplayed += entry.kind != OTHER
            self.unplayed -= samples
        self.first += 1
        self.start += samples
        Py_DECREF(<object>entry.thing)
        if self._room > LEAST_ROOM and (self.count - self.first) * 4 <= self._room:
            self._resize(self._room // 2)
        return samples

    cdef int _resize(self, Py_ssize_t room) except -1:
        """Make room for a power of two of steps; they lie at their number modulo the room."""
        cdef Entry *entries = <Entry *>PyMem_Realloc(NULL, room * sizeof(Entry))
        cdef int64_t number
        if entries is NULL:
            raise MemoryError
        for number in range(self.first, self.count):
            entries[number & (room - 1)] = self._entries[number & (self._room - 1)]
        PyMem_Free(self._entries)
        self._entries = entries
        self._room = room
        return 0


cdef class NextNumber:
    """``expected``: the number that a packet should have, any integer, or None for whichever."""


cdef class PacketOrder:
    """Which packet a track expects next, and how far it has come.

    ``numbers.expected`` is the number expected next, ``clock`` the time; both may be any integer.
    ``unsettled`` says that the next packet needs more than a look at these two, ``anchored`` that
    a time has ever been set, ``in_pieces`` that payloads are not packets. ``frame`` is the length
    of the last packet, ``end`` what was put out so far, ``speech_end`` where of it the last sound
    ended, all in 48 kHz samples. ``wake_s`` is when time alone brings something about, unless a
    packet comes: ``patience_s`` after the last.
    """

    def __cinit__(self, *args, **options):
        self.clock = 0
        self.last_packet_s = None

    cdef int follow(
            self, const unsigned char *payload, Py_ssize_t size, int64_t chunk, int64_t timestamp,
            double now_s) except -1:
        """Samples of a packet, if it is the one that was expected; 0: nothing has changed."""
        cdef int samples
        if self.unsettled or not self.anchored or self.in_pieces:
            return 0
        if not (_is(self.clock, timestamp) and _is(self.numbers.expected, chunk)):
            return 0
        samples = packet_samples(payload, size)
        if samples == 0 or samples != self.frame:
            return 0
        self.stats.received += 1
        self.numbers.expected = chunk + 1
        self.clock = timestamp + samples
        self.end += samples
        if size > DTX_BYTES:
            self.speech_end = self.end
        self.last_packet_s = now_s
        self.wake_s = now_s + self.patience_s
        return samples


def waking(dict orders not None, double now_s):
    """The keys of those orders for which time alone brings something about by now."""
    cdef list keys = []
    cdef PyObject *key
    cdef PyObject *order
    cdef Py_ssize_t at = 0
    while PyDict_Next(orders, &at, &key, &order):
        if now_s >= (<PacketOrder?><object>order).wake_s:
            keys.append(<object>key)
    return keys


def next_wake(dict orders not None):
    """The earliest ``wake_s`` of those orders; infinite when there is none."""
    cdef double soonest = INFINITY
    cdef PyObject *key
    cdef PyObject *order
    cdef Py_ssize_t at = 0
    while PyDict_Next(orders, &at, &key, &order):
        if (<PacketOrder?><object>order).wake_s < soonest:
            soonest = (<PacketOrder>order).wake_s
    return soonest


cdef class PacketIntake:
    """An order and the ring in which its packets are kept.

    When the ring's ``end`` reaches ``due`` somebody has to look after the track.
    """

    def __cinit__(self, PacketOrder order not None, StepRing ring not None):
        self.order = order
        self.ring = ring
        self.due = INT64_MAX

    cdef int take(
            self, bytes payload, int64_t chunk, int64_t timestamp, double now_s) except -1:
        """Samples of a packet that was expected and now is kept; 0: nothing has changed."""
        cdef int samples = self.order.follow(
            <const unsigned char *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), chunk,
            timestamp, now_s)
        if samples:
            self.ring._put(<PyObject *>payload, samples, PACKET)
        return samples
