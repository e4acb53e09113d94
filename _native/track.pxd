from libc.stdint cimport int64_t

from cpython.ref cimport PyObject


cdef struct Entry:
    PyObject *thing
    int samples
    int kind


cdef class TrackStats:
    cdef public int64_t received, decoded, corrupt, late, duplicate, empty, unplayed, reordered
    cdef public int64_t lost, recovered_fec, concealed, silenced, skipped
    cdef public int64_t silence_ms, jumps, restarts, container_faults, overflow_dropped_ms, shed_ms


cdef class StepRing:
    cdef Entry *_entries
    cdef Py_ssize_t _room
    cdef int64_t _limit, _crowd, _overflow, _played
    cdef readonly int64_t count, first, start, end, unplayed
    cdef readonly TrackStats stats

    cdef bint crowded(self) noexcept
    cdef void _mark(self, int64_t number, bint is_packet, bint sound) noexcept
    cdef int _put(self, PyObject *thing, int samples, int kind) except -1
    cdef int _resize(self, Py_ssize_t room) except -1
    cdef int _drop(self) except -1


cdef class NextNumber:
    cdef public object expected


cdef class PacketOrder:
    cdef public NextNumber numbers
    cdef public object clock, last_packet_s
    cdef public bint anchored, unsettled, in_pieces
    cdef public int frame
    cdef public double patience_s, wake_s
    cdef public int64_t end, speech_end
    cdef public TrackStats stats

    cdef int follow(
        self, const unsigned char *payload, Py_ssize_t size, int64_t chunk, int64_t timestamp,
        double now_s) except -1


cdef class PacketIntake:
    cdef readonly PacketOrder order
    cdef readonly StepRing ring
    cdef public int64_t due

    cdef int take(
        self, bytes payload, int64_t chunk, int64_t timestamp, double now_s) except -1
