"""Media events on their way from a frame to a track, without a stop in Python.

What is as it nearly always is, a packet of a running track that comes next in order and on time, is
kept at once. Every other message is declined and goes the long way, which gives the same result.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t

from _native.envelope cimport Media, base64_bytes, read_media, tag_text
from _native.frames cimport Taker
from _native.track cimport PacketIntake

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    const int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *time)

cdef enum:
    CLOCK_HZ = 48000
    # 20 ms: what one event usually brings.
    USUAL_SAMPLES = 960


cdef double _monotonic_s() noexcept nogil:
    """The clock of ``time.monotonic``."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class MediaIntake(Taker):
    """Takes the packets of one connection.

    ``tracks`` maps a tag to whatever has a ``PacketIntake`` as its ``intake``; it is looked at for
    each packet. ``due`` are those of them that have reached their ``due``, each once, for the
    caller to look after and to clear; so are ``crowded``, in which more waits to be played than may.
    """

    cdef dict _tracks
    cdef readonly list due, crowded
    cdef Py_ssize_t _packets, _bytes
    cdef double _events
    cdef int64_t _rest

    def __cinit__(self, dict tracks not None):
        self._tracks = tracks
        self.due = []
        self.crowded = []
        self._rest = INT64_MAX

    def settle(self):
        """``(packets, payload bytes, events, seconds)`` taken since the last call.

        A packet is one event for each 20 ms that it lasts, and one at least. The seconds are those
        of audio until the first of the tracks that got some, and are not ``due``, will be.
        """
        taken = self._packets, self._bytes, self._events, self._rest / <double>CLOCK_HZ
        self._packets = self._bytes = 0
        self._events = 0.0
        self._rest = INT64_MAX
        return taken

    cdef int take(self, const unsigned char *text, Py_ssize_t size) except -1:
        cdef Media media
        cdef PacketIntake intake
        cdef bytes payload
        cdef str tag
        cdef int samples
        cdef PyObject *track
        if not read_media(text, size, &media) or not (media.has_chunk and media.has_timestamp):
            return 0
        tag = tag_text(media.tag)
        if tag is None:
            return 0
        track = PyDict_GetItemWithError(self._tracks, tag)
        if track is NULL:
            return 0
        payload = base64_bytes(media.payload)
        if payload is None:
            return 0
        intake = (<object>track).intake
        samples = intake.take(payload, media.chunk, media.timestamp, _monotonic_s())
        if samples == 0:
            return 0
        self._packets += 1
        self._bytes += PyBytes_GET_SIZE(payload)
        self._events += max(1.0, samples / <double>USUAL_SAMPLES)
        if intake.ring.end >= intake.due:
            _add(self.due, track)
        elif intake.due - intake.ring.end < self._rest:
            self._rest = intake.due - intake.ring.end
        if intake.ring.crowded():
            _add(self.crowded, track)
        return 1


cdef int _add(list tracks, PyObject *track) except -1:
    """Append a track unless it is there."""
    for other in tracks:
        if <PyObject *>other is track:
            return 0
    tracks.append(<object>track)
    return 0
