"""Opus packets (RFC 6716) to 16-bit PCM and back, through the system's libopus.

PCM is signed 16-bit in the machine's byte order (little-endian on every platform built for),
channels interleaved; ``samples`` always counts per channel at the object's own rate. Packets and
PCM are taken from any contiguous bytes-like object. The GIL is released while libopus works. A
codec carries state from packet to packet, so one thread may use it at a time: a second thread
that enters meanwhile gets ``CodecBusy`` instead of a spoilt stream.

    OpusError                  code: libopus's error number
    ├── InvalidPacket          the bytes are not an Opus packet; the codec is as it was before
    ├── BadArgument            (ValueError) a rate, length or offset that Opus does not know
    ├── BufferTooSmall         (ValueError) the output does not hold the packet's samples
    └── CodecBusy              (RuntimeError) another thread is inside the same codec

An output that is read-only or not contiguous raises ``BufferError``, anything that is not
bytes-like ``TypeError``; both before the codec is touched.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uintptr_t

from _native cimport libopus

cdef extern from *:
    """
    #ifndef EDGESCRIBE_BUILD
    #define EDGESCRIBE_BUILD "unknown"
    #endif
    """
    const char *EDGESCRIBE_BUILD

cdef enum:
    # RFC 6716 section 3.2.5: at most 120 ms and so at most 48 frames of 2.5 ms in a packet.
    MAX_FRAMES = 48
    # 512 kbit/s for 120 ms is 7680 bytes.
    MAX_PACKET_BYTES = 8192
    # Packets that are decoded without a look at the GIL.
    MAX_RUN = 16

cdef enum Way:
    # How PCM is made: of a packet, of the copy it carries of what was lost before, of nothing.
    DECODE
    RECOVER
    CONCEAL


class OpusError(Exception):
    """libopus refused; ``code`` is its error number (negative)."""

    def __init__(self, message, code=libopus.OPUS_INTERNAL_ERROR):
        self.code = code
        super().__init__(message)


class InvalidPacket(OpusError):
    """The bytes are not a well-formed Opus packet."""

    def __init__(self, message, code=libopus.OPUS_INVALID_PACKET):
        super().__init__(message, code)


class BadArgument(OpusError, ValueError):
    """A rate, channel count, length or offset that Opus does not know."""

    def __init__(self, message, code=libopus.OPUS_BAD_ARG):
        super().__init__(message, code)


class BufferTooSmall(OpusError, ValueError):
    """The output buffer ends before the packet's samples do; nothing was written."""

    def __init__(self, message, code=libopus.OPUS_BUFFER_TOO_SMALL):
        super().__init__(message, code)


class CodecBusy(OpusError, RuntimeError):
    """Another thread is inside the same decoder or encoder."""


cdef object _error(int code, str doing):
    """The exception for libopus's error ``code``."""
    if code == libopus.OPUS_ALLOC_FAIL:
        return MemoryError(f"libopus found no memory while {doing}")
    message = f"{doing}: {libopus.opus_strerror(code).decode('ascii')}"
    if code == libopus.OPUS_INVALID_PACKET:
        return InvalidPacket(message)
    if code == libopus.OPUS_BAD_ARG:
        return BadArgument(message)
    if code == libopus.OPUS_BUFFER_TOO_SMALL:
        return BufferTooSmall(f"{doing}: its samples do not fit into the buffer")
    return OpusError(message, code)


cdef int _check_rate(int rate_hz) except -1:
    if rate_hz not in (8000, 12000, 16000, 24000, 48000):
        raise BadArgument(
            f"rate_hz={rate_hz}: Opus knows 8000, 12000, 16000, 24000 and 48000")
    return 0


cdef int _check_channels(int channels) except -1:
    if channels not in (1, 2):
        raise BadArgument(f"channels={channels}: a packet is decoded to 1 or 2 channels")
    return 0


cdef int _check_packet_size(Py_ssize_t packet_bytes) except -1:
    if packet_bytes == 0:
        raise InvalidPacket("the packet is empty; a lost packet is concealed with conceal()")
    if packet_bytes > 0x7FFFFFFF:
        raise InvalidPacket(f"a packet of {packet_bytes} bytes")
    return 0


cdef int _parse(object packet, int rate_hz, int *channels, bint *has_fec) except -1:
    """Samples per channel of a packet, which is checked whole as a decoder would."""
    cdef Py_buffer view
    cdef const unsigned char *frames[MAX_FRAMES]
    cdef short frame_bytes[MAX_FRAMES]
    cdef const unsigned char *data
    cdef int count
    PyObject_GetBuffer(packet, &view, PyBUF_SIMPLE)
    try:
        _check_packet_size(view.len)
        data = <const unsigned char *>view.buf
        count = libopus.opus_packet_parse(data, <int>view.len, NULL, frames, frame_bytes, NULL)
        if count < 0:
            raise _error(count, "reading a packet's header")
        channels[0] = libopus.opus_packet_get_nb_channels(data)
        has_fec[0] = frame_bytes[0] > 0 and _lbrr(data[0], frames[0][0], channels[0])
        return count * libopus.opus_packet_get_samples_per_frame(data, rate_hz)
    finally:
        PyBuffer_Release(&view)


cdef bint _lbrr(unsigned char toc, unsigned char first, int channels) noexcept:
    """LBRR flag of an Opus frame whose first byte is ``first`` (RFC 6716 sections 3.1, 4.2.3).

    Configurations 0 to 15 carry SILK. Its header is, for the mid and then the side channel, a
    voice flag per 20 ms and one LBRR flag, each an even-odds bit and so readable in place.
    """
    cdef int configuration = toc >> 3
    cdef int voice_flags
    if configuration >= 16:
        return False
    voice_flags = configuration % 4 if configuration < 12 and configuration % 4 else 1
    if first >> (7 - voice_flags) & 1:
        return True
    return channels == 2 and first >> (6 - 2 * voice_flags) & 1


def packet_samples(packet, int rate_hz=48000):
    """Samples per channel of ``packet`` when decoded at ``rate_hz``: 2.5 to 120 ms of them.

    Raises InvalidPacket for whatever a decoder would refuse, BadArgument for the rate.
    """
    cdef int channels
    cdef bint has_fec
    _check_rate(rate_hz)
    return _parse(packet, rate_hz, &channels, &has_fec)


def run_samples(list packets not None, int rate_hz=48000):
    """Samples per channel of packets together; raises what ``packet_samples`` does."""
    cdef int channels
    cdef bint has_fec
    cdef Py_ssize_t samples = 0
    _check_rate(rate_hz)
    for packet in packets:
        samples += _parse(packet, rate_hz, &channels, &has_fec)
    return samples


def packet_channels(packet):
    """1 or 2: the channels the packet was coded with (a decoder mixes to its own count)."""
    cdef int channels
    cdef bint has_fec
    _parse(packet, 48000, &channels, &has_fec)
    return channels


def packet_has_fec(packet):
    """True if the packet carries a coarse copy (LBRR) of the audio just before it."""
    cdef int channels
    cdef bint has_fec
    _parse(packet, 48000, &channels, &has_fec)
    return has_fec


def version():
    """libopus's own name and version, as in ``libopus 1.3.1``."""
    return libopus.opus_get_version_string().decode("ascii")


def build():
    """How this extension was compiled: ``release``, ``debug`` or ``sanitize``."""
    return EDGESCRIBE_BUILD.decode("ascii")


cdef extern from "pcm16.h" nogil:
    int edgescribe_decode(
        libopus.OpusDecoder *decoder, const unsigned char *packet, int packet_bytes,
        short *pcm, int room, int channels, float *memory)


@cython.final
cdef class Decoder:
    """Decodes one Opus stream straight at ``rate_hz`` to ``channels``, whatever the packets hold.

    ``rate_hz`` is 8000, 12000, 16000, 24000 or 48000; ``channels`` 1 (stereo packets are mixed
    down) or 2. Raises BadArgument otherwise.
    """

    cdef libopus.OpusDecoder *decoder
    # How each channel was bent back below full scale at the end of the last packet.
    cdef float[2] bend
    cdef bint busy
    cdef readonly int rate_hz
    cdef readonly int channels

    def __cinit__(self, int rate_hz, int channels=1):
        cdef int error = 0
        _check_rate(rate_hz)
        _check_channels(channels)
        self.rate_hz = rate_hz
        self.channels = channels
        self.decoder = libopus.opus_decoder_create(rate_hz, channels, &error)
        if self.decoder is NULL:
            raise _error(error, "creating a decoder")

    def __dealloc__(self):
        if self.decoder is not NULL:
            libopus.opus_decoder_destroy(self.decoder)

    def decode(self, packet):
        """PCM of the packet that follows the last one decoded.

        Raises InvalidPacket when the bytes are no packet, the decoder's state unchanged. Damage
        inside a well-formed packet cannot be seen: it decodes to some sound.
        """
        cdef int channels
        cdef bint has_fec
        return self._fresh(packet, _parse(packet, self.rate_hz, &channels, &has_fec), DECODE)

    def decode_into(self, packet, out, Py_ssize_t offset_bytes=0):
        """Like decode, written at ``out[offset_bytes:]``; returns the samples per channel.

        Raises BufferTooSmall, and writes nothing, if they do not fit, BadArgument if the place
        is outside ``out`` or not on a 2-byte boundary.
        """
        return self._write(packet, out, offset_bytes, 0, DECODE)

    def decode_run_into(self, list packets not None, out, Py_ssize_t offset_bytes=0):
        """Packets that follow each other, written end to end at ``out[offset_bytes:]``.

        Returns how many were decoded and the samples per channel they made. It ends early, and
        raises nothing, before a packet that ``decode_into`` would refuse.
        """
        cdef const unsigned char *datas[MAX_RUN]
        cdef Py_ssize_t sizes[MAX_RUN]
        cdef Py_buffer view
        cdef Py_ssize_t count = len(packets)
        cdef Py_ssize_t decoded = 0
        cdef Py_ssize_t samples = 0
        cdef Py_ssize_t room
        cdef int index, run, written
        cdef short *pcm
        cdef bytes packet
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            pcm = self._place(&view, offset_bytes)
            room = (view.len - offset_bytes) // (2 * self.channels)
            written = 1
            while decoded < count and written > 0:
                run = <int>min(count - decoded, MAX_RUN)
                for index in range(run):
                    packet = packets[decoded + index]
                    datas[index] = <const unsigned char *>PyBytes_AS_STRING(packet)
                    sizes[index] = PyBytes_GET_SIZE(packet)
                self._enter()
                with nogil:
                    for index in range(run):
                        written = self._decode_one(
                            datas[index], sizes[index], pcm + samples * self.channels,
                            <int>min(room - samples, 48 * self.rate_hz // 400))
                        if written <= 0:
                            break
                        samples += written
                        decoded += 1
                self.busy = False
            return decoded, samples
        finally:
            PyBuffer_Release(&view)

    def recover(self, packet, Py_ssize_t samples):
        """PCM of the loss of ``samples`` just before ``packet``, from the copy it carries.

        ``packet`` itself is not decoded: call decode with it next. Only the end of the loss, as
        long as one frame of ``packet``, is in the copy; what comes before it, and all of it when
        the packet has none, is concealed. ``samples`` is a multiple of 2.5 ms up to 120 ms.
        """
        return self._fresh(packet, self._loss(samples), RECOVER)

    def recover_into(self, packet, Py_ssize_t samples, out, Py_ssize_t offset_bytes=0):
        """Like recover, written at ``out[offset_bytes:]``; returns ``samples``."""
        return self._write(packet, out, offset_bytes, self._loss(samples), RECOVER)

    def conceal(self, Py_ssize_t samples):
        """PCM that bridges a loss of ``samples``, a multiple of 2.5 ms up to 120 ms.

        It continues what was last heard and fades with each further call.
        """
        return self._fresh(None, self._loss(samples), CONCEAL)

    def conceal_into(self, Py_ssize_t samples, out, Py_ssize_t offset_bytes=0):
        """Like conceal, written at ``out[offset_bytes:]``; returns ``samples``."""
        return self._write(None, out, offset_bytes, self._loss(samples), CONCEAL)

    def reset(self):
        """Forget the stream; the next packet starts a new one."""
        self._enter()
        libopus.opus_decoder_ctl(self.decoder, libopus.OPUS_RESET_STATE)
        self.bend[0] = self.bend[1] = 0
        self.busy = False

    @property
    def final_range(self):
        """The range coder's state after the last packet, to compare with the encoder's."""
        cdef uint32_t value = 0
        self._enter()
        libopus.opus_decoder_ctl(self.decoder, libopus.OPUS_GET_FINAL_RANGE_REQUEST, &value)
        self.busy = False
        return value

    cdef int _enter(self) except -1:
        if self.busy:
            raise CodecBusy("another thread is using this decoder")
        self.busy = True
        return 0

    cdef int _loss(self, Py_ssize_t samples) except -1:
        cdef int step = self.rate_hz // 400
        if samples <= 0 or samples > 48 * step or samples % step:
            raise BadArgument(
                f"samples={samples}: a loss is a multiple of 2.5 ms ({step} samples) up to 120 ms")
        return <int>samples

    cdef bytes _fresh(self, object packet, int samples, Way way):
        """``samples`` of new PCM."""
        cdef bytes pcm = PyBytes_FromStringAndSize(NULL, 2 * self.channels * samples)
        cdef int written = self._run(packet, <short *>PyBytes_AS_STRING(pcm), samples, way)
        if written != samples:
            raise OpusError(f"libopus gave {written} samples where {samples} were due")
        return pcm

    cdef int _write(
            self, object packet, object out, Py_ssize_t offset_bytes, int samples,
            Way way) except -1:
        """The same into a caller's buffer; ``samples`` 0 means as many as the packet has."""
        cdef Py_buffer view
        cdef Py_ssize_t room
        cdef short *place
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            place = self._place(&view, offset_bytes)
            room = min((view.len - offset_bytes) // (2 * self.channels), 48 * self.rate_hz // 400)
            if room < (samples or 1):
                raise BufferTooSmall(
                    f"{view.len - offset_bytes} bytes are left in the buffer for PCM")
            return self._run(packet, place, samples or <int>room, way)
        finally:
            PyBuffer_Release(&view)

    cdef short *_place(self, Py_buffer *view, Py_ssize_t offset_bytes) except NULL:
        """Where in an output to write."""
        cdef char *place = <char *>view.buf + offset_bytes
        if offset_bytes < 0 or offset_bytes > view.len:
            raise BadArgument(
                f"offset_bytes={offset_bytes} is outside a buffer of {view.len} bytes")
        if <uintptr_t>place & 1:
            raise BadArgument(f"offset_bytes={offset_bytes} is not on a 2-byte boundary")
        return <short *>place

    cdef int _run(self, object packet, short *pcm, int samples, Way way) except -1:
        cdef Py_buffer view
        if way == CONCEAL:
            return self._call(NULL, 0, pcm, samples, False)
        PyObject_GetBuffer(packet, &view, PyBUF_SIMPLE)
        try:
            _check_packet_size(view.len)
            return self._call(
                <const unsigned char *>view.buf, <int>view.len, pcm, samples, way == RECOVER)
        finally:
            PyBuffer_Release(&view)

    cdef int _decode_one(
            self, const unsigned char *packet, Py_ssize_t packet_bytes, short *pcm,
            int room) noexcept nogil:
        """Samples per channel of a packet; 0 or less for one that cannot be decoded here."""
        if packet_bytes == 0 or packet_bytes > 0x7FFFFFFF or room <= 0:
            return 0
        return edgescribe_decode(
            self.decoder, packet, <int>packet_bytes, pcm, room, self.channels, self.bend)

    cdef int _call(
            self, const unsigned char *packet, int packet_bytes, short *pcm, int samples,
            bint recover) except -1:
        cdef int written
        self._enter()
        with nogil:
            if packet is NULL or recover:
                written = libopus.opus_decode(
                    self.decoder, packet, packet_bytes, pcm, samples, recover)
            else:
                written = edgescribe_decode(
                    self.decoder, packet, packet_bytes, pcm, samples, self.channels, self.bend)
        self.busy = False
        if written < 0:
            raise _error(written, "decoding a packet")
        return written


@cython.final
cdef class Encoder:
    """Encodes speech (VOIP mode) as one Opus stream.

    ``rate_hz`` and ``channels`` as for Decoder; ``bitrate_bps`` 500 to 512000; ``fec`` puts a
    coarse copy of the frame before into each packet, if ``loss_percent`` (0 to 100), the loss
    to be ready for, makes it worth while; ``dtx`` stops sending in silence; ``complexity`` 0 to
    10. Raises BadArgument.
    """

    cdef libopus.OpusEncoder *encoder
    cdef bint busy
    cdef readonly int rate_hz
    cdef readonly int channels
    cdef readonly bint in_dtx

    def __cinit__(
            self, int rate_hz=48000, int channels=1, *, int bitrate_bps=32000, bint fec=False,
            bint dtx=False, int loss_percent=0, int complexity=9):
        cdef int error = 0
        _check_rate(rate_hz)
        _check_channels(channels)
        if not 500 <= bitrate_bps <= 512000:
            raise BadArgument(f"bitrate_bps={bitrate_bps}: Opus knows 500 to 512000")
        if not 0 <= loss_percent <= 100:
            raise BadArgument(f"loss_percent={loss_percent}: 0 to 100")
        if not 0 <= complexity <= 10:
            raise BadArgument(f"complexity={complexity}: Opus knows 0 to 10")
        self.rate_hz = rate_hz
        self.channels = channels
        self.encoder = libopus.opus_encoder_create(
            rate_hz, channels, libopus.OPUS_APPLICATION_VOIP, &error)
        if self.encoder is NULL:
            raise _error(error, "creating an encoder")
        self._set(libopus.OPUS_SET_BITRATE_REQUEST, bitrate_bps)
        self._set(libopus.OPUS_SET_INBAND_FEC_REQUEST, fec)
        self._set(libopus.OPUS_SET_DTX_REQUEST, dtx)
        self._set(libopus.OPUS_SET_PACKET_LOSS_PERC_REQUEST, loss_percent)
        self._set(libopus.OPUS_SET_COMPLEXITY_REQUEST, complexity)

    def __dealloc__(self):
        if self.encoder is not NULL:
            libopus.opus_encoder_destroy(self.encoder)

    def encode(self, pcm):
        """The packet of one frame of interleaved PCM: 2.5, 5, 10, 20, 40, 60, 80, 100 or 120 ms.

        A packet of 2 bytes or less need not be sent (``in_dtx`` is then True). Raises
        BadArgument for any other length and for PCM not on a 2-byte boundary.
        """
        cdef Py_buffer view
        cdef unsigned char packet[MAX_PACKET_BYTES]
        cdef int samples
        cdef int written
        PyObject_GetBuffer(pcm, &view, PyBUF_SIMPLE)
        try:
            samples = self._frame(view.len)
            if <uintptr_t>view.buf & 1:
                raise BadArgument("the PCM is not on a 2-byte boundary")
            self._enter()
            with nogil:
                written = libopus.opus_encode(
                    self.encoder, <const short *>view.buf, samples, packet, MAX_PACKET_BYTES)
            self.busy = False
        finally:
            PyBuffer_Release(&view)
        if written < 0:
            raise _error(written, "encoding a frame")
        self.in_dtx = written <= 2
        return PyBytes_FromStringAndSize(<char *>packet, written)

    def reset(self):
        """Forget the stream; the next frame starts a new one."""
        self._enter()
        libopus.opus_encoder_ctl(self.encoder, libopus.OPUS_RESET_STATE)
        self.in_dtx = False
        self.busy = False

    @property
    def final_range(self):
        """The range coder's state after the last frame, to compare with the decoder's."""
        cdef uint32_t value = 0
        self._enter()
        libopus.opus_encoder_ctl(self.encoder, libopus.OPUS_GET_FINAL_RANGE_REQUEST, &value)
        self.busy = False
        return value

    @property
    def lookahead_samples(self):
        """Samples by which decoded audio comes late: the codec's delay at ``rate_hz``."""
        cdef int value = 0
        self._enter()
        libopus.opus_encoder_ctl(self.encoder, libopus.OPUS_GET_LOOKAHEAD_REQUEST, &value)
        self.busy = False
        return value

    cdef int _enter(self) except -1:
        if self.busy:
            raise CodecBusy("another thread is using this encoder")
        self.busy = True
        return 0

    cdef int _set(self, int request, int value) except -1:
        cdef int error = libopus.opus_encoder_ctl(self.encoder, request, value)
        if error != libopus.OPUS_OK:
            raise _error(error, "configuring an encoder")
        return 0

    cdef int _frame(self, Py_ssize_t pcm_bytes) except -1:
        """Samples per channel in ``pcm_bytes``, if that is a frame length Opus has."""
        cdef Py_ssize_t sample_bytes = 2 * self.channels
        cdef Py_ssize_t samples = pcm_bytes // sample_bytes
        cdef int step = self.rate_hz // 400
        if pcm_bytes % sample_bytes == 0 and samples % step == 0 and (
                samples // step in (1, 2, 4, 8, 16, 24, 32, 40, 48)):
            return <int>samples
        raise BadArgument(
            f"{pcm_bytes} bytes of PCM are no frame: 2.5, 5, 10, 20, 40, 60, 80, 100 or 120 ms "
            f"at {self.rate_hz} Hz with {sample_bytes} bytes each")
