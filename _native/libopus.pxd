# The only file that names libopus symbols. Present since libopus 1.2; `multistream` is not used.
cdef extern from "opus.h" nogil:
    ctypedef struct OpusDecoder:
        pass
    ctypedef struct OpusEncoder:
        pass

    int OPUS_OK
    int OPUS_BAD_ARG
    int OPUS_BUFFER_TOO_SMALL
    int OPUS_INTERNAL_ERROR
    int OPUS_INVALID_PACKET
    int OPUS_ALLOC_FAIL
    int OPUS_APPLICATION_VOIP

    int OPUS_RESET_STATE
    int OPUS_GET_FINAL_RANGE_REQUEST
    int OPUS_GET_LOOKAHEAD_REQUEST
    int OPUS_SET_BITRATE_REQUEST
    int OPUS_SET_COMPLEXITY_REQUEST
    int OPUS_SET_DTX_REQUEST
    int OPUS_SET_INBAND_FEC_REQUEST
    int OPUS_SET_PACKET_LOSS_PERC_REQUEST

    const char *opus_get_version_string()
    const char *opus_strerror(int error)

    OpusDecoder *opus_decoder_create(int rate_hz, int channels, int *error)
    void opus_decoder_destroy(OpusDecoder *decoder)
    int opus_decoder_ctl(OpusDecoder *decoder, int request, ...)
    int opus_decode(
        OpusDecoder *decoder, const unsigned char *packet, int packet_bytes,
        short *pcm, int frame_samples, int decode_fec)

    OpusEncoder *opus_encoder_create(int rate_hz, int channels, int application, int *error)
    void opus_encoder_destroy(OpusEncoder *encoder)
    int opus_encoder_ctl(OpusEncoder *encoder, int request, ...)
    int opus_encode(
        OpusEncoder *encoder, const short *pcm, int frame_samples,
        unsigned char *packet, int packet_capacity)

    int opus_packet_parse(
        const unsigned char *packet, int packet_bytes, unsigned char *toc,
        const unsigned char **frames, short *frame_bytes, int *payload_offset)
    int opus_packet_get_samples_per_frame(const unsigned char *packet, int rate_hz)
    int opus_packet_get_nb_channels(const unsigned char *packet)
