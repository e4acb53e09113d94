# What the first bytes of an Opus packet say (RFC 6716 section 3.1).


cdef inline int packet_samples(const unsigned char *packet, Py_ssize_t size) noexcept nogil:
    """How many 48 kHz samples a packet lasts, whatever is in its frames; 0 if it can be none."""
    cdef int configuration
    cdef int frames
    if size < 1:
        return 0
    configuration = packet[0] >> 3
    frames = packet[0] & 3
    if frames == 3:
        frames = packet[1] & 63 if size > 1 else 0
    else:
        frames = 2 if frames else 1
    if configuration >= 16:
        frames *= 120 << (configuration & 3)
    elif configuration >= 12:
        frames *= 480 << (configuration & 1)
    else:
        frames *= 2880 if configuration & 3 == 3 else 480 << (configuration & 3)
    return frames if frames <= 5760 else 0
