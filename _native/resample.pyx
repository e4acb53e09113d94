"""Signed 16-bit PCM from one sample rate to another, as it comes: a polyphase FIR filter.

PCM is interleaved in the machine's byte order (little-endian on every platform built for), or in
network order where asked for; several channels are averaged to one. Samples are counted per
channel. Input may be cut anywhere between samples: the output is the same, bit for bit. The
GIL is released while samples are made. A resampler carries state from call to call, so one
thread may use it at a time: a second one that enters meanwhile gets ``ResamplerBusy``.

    BadFormat        (ValueError) a rate, channel count or length that is not one of ours
    ResamplerBusy    (RuntimeError) another thread is inside the same resampler

An output that is read-only or not contiguous raises ``BufferError``, anything that is not
bytes-like ``TypeError``; both before the resampler is touched.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport M_PI as pi, sin, sqrt
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset

from functools import cache
from math import gcd

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Four lanes of a vector unit that every machine has; loads need no alignment. */
    typedef float edgescribe_lanes
        __attribute__((vector_size(16), aligned(4), may_alias));

    /* Four sums at a time, so that no addition waits for the one before it. */
    static inline float edgescribe_dot(const float *a, const float *b, Py_ssize_t count)
    {
        edgescribe_lanes sums[4] = {{0}, {0}, {0}, {0}};
        for (Py_ssize_t at = 0; at < count; at += 16)
            for (int part = 0; part < 4; part++)
                sums[part] += *(const edgescribe_lanes *)(a + at + 4 * part)
                            * *(const edgescribe_lanes *)(b + at + 4 * part);
        sums[0] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        return (sums[0][0] + sums[0][1]) + (sums[0][2] + sums[0][3]);
    }

    static inline int16_t edgescribe_sample(const unsigned char *pcm, int swap)
    {
        uint16_t bits;
        memcpy(&bits, pcm, 2);
        if (swap)
            bits = (uint16_t)(bits << 8 | bits >> 8);
        return (int16_t)bits;
    }

    static inline void edgescribe_read_mono(
        const unsigned char *pcm, Py_ssize_t samples, int swap, float *out)
    {
        for (Py_ssize_t at = 0; at < samples; at++)
            out[at] = edgescribe_sample(pcm + 2 * at, swap);
    }

    static inline void edgescribe_read(
        const unsigned char *pcm, Py_ssize_t samples, int channels, int swap, float *out)
    {
        if (channels == 1) {
            if (swap)
                edgescribe_read_mono(pcm, samples, 1, out);
            else
                edgescribe_read_mono(pcm, samples, 0, out);
            return;
        }
        for (Py_ssize_t at = 0; at < samples; at++) {
            int sum = 0;
            for (int channel = 0; channel < channels; channel++, pcm += 2)
                sum += edgescribe_sample(pcm, swap);
            out[at] = (float)sum / (float)channels;
        }
    }

    static inline void edgescribe_write(float value, char *out)
    {
        int16_t sample;
        value = value < -32768.0f ? -32768.0f : value > 32767.0f ? 32767.0f : value;
        sample = (int16_t)(value < 0 ? value - 0.5f : value + 0.5f);
        memcpy(out, &sample, 2);
    }
    """
    float edgescribe_dot(const float *a, const float *b, Py_ssize_t count) noexcept nogil
    void edgescribe_read(
        const unsigned char *pcm, Py_ssize_t samples, int channels, int swap,
        float *out) noexcept nogil
    void edgescribe_write(float value, char *out) noexcept nogil

RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MAX_CHANNELS = 8

cdef enum:
    BLOCK = 1024
    TAPS_AT_ONCE = 16

# With these the passband ends, at -1 dB, above 0.9 of the lower rate's Nyquist frequency and the
# stopband begins below 1.125 of it for every pair of rates, though none is later than 2 ms.
cdef double BETA = 7.6
cdef double CUTOFF = 0.97
cdef int MAX_DELAY_PERIODS = 20
cdef int MAX_DELAY_PER_S = 500


class BadFormat(ValueError):
    """A rate, channel count or length that is not one of ours."""


class ResamplerBusy(RuntimeError):
    """Another thread is inside the same resampler."""


@cache
def _filter(int in_rate_hz, int out_rate_hz):
    """The filter between two different rates: its taps, as float32 in rows, how many a row has,
    and its delay in samples at ``out_rate_hz``.

    A windowed sinc (Kaiser and Schafer 1980) at the lowest common multiple of both rates, cut into
    one row for each place an output sample can have between two input samples. A row is turned
    round, so that it is laid on the newest samples as they lie in memory, and made to leave a
    constant as it is. Its delay is a whole number of output samples. Kept for all who ask.
    """
    common = gcd(in_rate_hz, out_rate_hz)
    rows, step = out_rate_hz // common, in_rate_hz // common
    lower_hz = min(in_rate_hz, out_rate_hz)
    delay = min(
        out_rate_hz // MAX_DELAY_PER_S, MAX_DELAY_PERIODS * out_rate_hz // lower_hz
    )
    length = 2 * delay * step + 1
    columns = -(-length // (rows * TAPS_AT_ONCE)) * TAPS_AT_ONCE
    bank = PyBytes_FromStringAndSize(NULL, rows * columns * sizeof(float))
    _design(
        <float *>PyBytes_AS_STRING(bank), rows, columns, length, delay * step,
        CUTOFF * lower_hz / (<double>in_rate_hz * rows),
    )
    return bank, columns, delay


cdef void _design(
    float *bank, int rows, int columns, int length, int middle, double cutoff
) noexcept:
    """Fill ``bank`` with the taps of a windowed sinc; ``cutoff`` is in its own samples."""
    cdef int row, column, tap
    cdef double total, place, value
    for row in range(rows):
        total = 0.0
        for column in range(columns):
            tap = (columns - 1 - column) * rows + row
            value = 0.0
            if tap < length:
                place = pi * cutoff * (tap - middle)
                value = sin(place) / place if place != 0.0 else 1.0
                place = (tap - middle) / <double>middle
                value *= _bessel_i0(BETA * sqrt(1.0 - place * place))
            bank[row * columns + column] = value
            total += value
        for column in range(columns):
            bank[row * columns + column] /= total


cdef double _bessel_i0(double x) noexcept:
    """The modified Bessel function of the first kind and order zero, by its power series."""
    cdef double total = 1.0, term = 1.0, half = x / 2.0
    cdef int order = 1
    while term > 1e-17 * total:
        term *= (half / order) * (half / order)
        total += term
        order += 1
    return total


@cython.final
cdef class Resampler:
    """Takes PCM of ``channels`` at ``in_rate_hz``, gives it as one channel at ``out_rate_hz``.

    Rates are those of ``RATES_HZ``, channels 1 to 8; BadFormat otherwise. Between equal rates
    samples pass as they are, without delay. Otherwise sound comes ``delay_samples`` (of the output)
    later than it went in, at most 2 ms; levels stay within 1 dB up to 0.9 of the lower rate's
    Nyquist frequency, and what lies above 1.125 of it is 75 dB down.

    After n samples altogether exactly ``n * out_rate_hz // in_rate_hz`` have come out.
    """

    cdef bytes bank
    cdef const float *taps
    cdef float *window
    cdef Py_ssize_t columns
    cdef Py_ssize_t kept
    cdef int64_t rows
    cdef int64_t step
    cdef int64_t behind
    cdef bint busy
    cdef readonly int in_rate_hz
    cdef readonly int out_rate_hz
    cdef readonly int channels
    cdef readonly bint big_endian
    cdef readonly int delay_samples

    def __cinit__(
            self, int in_rate_hz, int out_rate_hz, int channels=1, *, bint big_endian=False):
        for name, rate_hz in (("in_rate_hz", in_rate_hz), ("out_rate_hz", out_rate_hz)):
            if rate_hz not in RATES_HZ:
                raise BadFormat(f"{name}={rate_hz}: known are {', '.join(map(str, RATES_HZ))}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise BadFormat(f"channels={channels}: 1 to {MAX_CHANNELS} are mixed to one")
        self.in_rate_hz = in_rate_hz
        self.out_rate_hz = out_rate_hz
        self.channels = channels
        self.big_endian = big_endian
        self.rows = self.step = self.columns = 1
        if in_rate_hz != out_rate_hz:
            self.rows = out_rate_hz // gcd(in_rate_hz, out_rate_hz)
            self.step = in_rate_hz // gcd(in_rate_hz, out_rate_hz)
            self.bank, self.columns, self.delay_samples = _filter(in_rate_hz, out_rate_hz)
            self.taps = <const float *>PyBytes_AS_STRING(self.bank)
        # An output sample may still be due that lies up to one of its periods back.
        self.kept = self.columns + <Py_ssize_t>(self.step // self.rows)
        self.window = <float *>calloc(self.kept + BLOCK, sizeof(float))
        if self.window is NULL:
            raise MemoryError("no memory for a resampler's window")

    def __dealloc__(self):
        free(self.window)

    @property
    def delay_ms(self):
        """How much later sound comes out than it went in."""
        return self.delay_samples * 1000.0 / self.out_rate_hz

    def due(self, int64_t samples):
        """How many samples the next ``samples`` of input will bring."""
        # So many, at any ratio, are counted without overflow.
        if not 0 <= samples <= 0x10000000000:
            raise BadFormat(f"samples={samples} is no length")
        return self._due(samples)

    def process(self, pcm):
        """The samples that are due with this input, as bytes.

        Raises BadFormat if ``pcm`` does not hold whole samples of every channel.
        """
        cdef Py_buffer view
        cdef Py_ssize_t samples
        cdef bytes out
        cdef char *place
        PyObject_GetBuffer(pcm, &view, PyBUF_SIMPLE)
        try:
            samples = self._samples(view.len)
            self._enter()
            try:
                out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(2 * self._due(samples)))
                place = PyBytes_AS_STRING(out)
                with nogil:
                    self._resample(<const unsigned char *>view.buf, samples, place)
                return out
            finally:
                self.busy = False
        finally:
            PyBuffer_Release(&view)

    def process_into(self, pcm, out, Py_ssize_t offset_bytes=0):
        """Like process, written at ``out[offset_bytes:]``; returns the samples written.

        ``pcm`` and ``out`` may not overlap. Raises BadFormat, and takes nothing, if they do not
        fit or the place is outside ``out``.
        """
        cdef Py_buffer view, room
        PyObject_GetBuffer(pcm, &view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(out, &room, PyBUF_WRITABLE)
            try:
                return self._fill(&view, &room, offset_bytes)
            finally:
                PyBuffer_Release(&room)
        finally:
            PyBuffer_Release(&view)

    def flush(self):
        """The last ``delay_samples``, which are still inside; the next input starts anew."""
        cdef int64_t wanted = 2 * self.delay_samples
        cdef int64_t silence = self.delay_samples * self.step // self.rows + 1
        tail = self.process(bytes(2 * self.channels * silence))
        self.reset()
        return tail[:wanted]

    def reset(self):
        """Forget what was taken; the next input starts anew."""
        self._enter()
        memset(self.window, 0, self.kept * sizeof(float))
        self.behind = 0
        self.busy = False

    cdef int _enter(self) except -1:
        if self.busy:
            raise ResamplerBusy("another thread is using this resampler")
        self.busy = True
        return 0

    cdef Py_ssize_t _samples(self, Py_ssize_t size) except -1:
        """How many samples per channel so many bytes hold."""
        if size % (2 * self.channels):
            raise BadFormat(
                f"{size} bytes of PCM are no whole samples of {self.channels} channels")
        return size // (2 * self.channels)

    cdef int64_t _fill(
            self, Py_buffer *view, Py_buffer *room, Py_ssize_t offset_bytes) except -1:
        cdef Py_ssize_t samples = self._samples(view.len)
        cdef int64_t due
        if not 0 <= offset_bytes <= room.len:
            raise BadFormat(f"offset_bytes={offset_bytes} is outside the buffer")
        self._enter()
        try:
            due = self._due(samples)
            if 2 * due > room.len - offset_bytes:
                raise BadFormat(f"{due} samples do not fit behind byte {offset_bytes}")
            with nogil:
                self._resample(<const unsigned char *>view.buf, samples,
                               <char *>room.buf + offset_bytes)
            return due
        finally:
            self.busy = False

    cdef int64_t _due(self, int64_t samples) noexcept:
        return (samples * self.rows + self.behind) // self.step

    cdef void _resample(
            self, const unsigned char *pcm, Py_ssize_t samples, char *out) noexcept nogil:
        """Input goes behind the kept samples, block by block, and outputs are taken from there.

        ``behind`` says, in parts of an input sample (``rows`` of them), how far the next output
        sample lies before the next input sample.
        """
        cdef int swap = self.big_endian
        cdef Py_ssize_t count, at
        cdef int64_t left, row
        while samples > 0:
            count = min(samples, <Py_ssize_t>BLOCK)
            edgescribe_read(pcm, count, self.channels, swap, self.window + self.kept)
            pcm += 2 * self.channels * count
            samples -= count
            if self.taps is NULL:
                for at in range(count):
                    edgescribe_write(self.window[self.kept + at], out + 2 * at)
                out += 2 * count
                continue
            self.behind += count * self.rows
            # Position of the next output in the window and the row that belongs to it.
            left = (self.kept + count) * self.rows - self.behind
            at = <Py_ssize_t>(left // self.rows)
            row = left % self.rows
            while self.behind >= self.step:
                edgescribe_write(
                    edgescribe_dot(
                        self.window + at + 1 - self.columns,
                        self.taps + row * self.columns, self.columns),
                    out)
                out += 2
                self.behind -= self.step
                row += self.step
                at += <Py_ssize_t>(row // self.rows)
                row = row % self.rows
            memmove(self.window, self.window + count, self.kept * sizeof(float))
