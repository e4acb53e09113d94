/* Floating-point PCM of a decoder to 16 bits, as libopus's opus_decode does it, in fewer steps.

   opus_decode looks at each sample three times, one by one: to limit it, to find what has to be
   bent back below full scale (opus_pcm_soft_clip), and to round it. Here four samples are looked at
   together, and opus_pcm_soft_clip is called only if there is something for it to do: a sample
   beyond full scale, or a bend that goes on from the packet before. The result is the same. */

#ifndef EDGESCRIBE_PCM16_H
#define EDGESCRIBE_PCM16_H

#include <math.h>
#include <opus.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* 120 ms of stereo at 48 kHz. */
enum { EDGESCRIBE_MOST_VALUES = 2 * 5760 };

static int edgescribe_beyond_full_scale(const float *values, int count)
{
    int index = 0;
#ifdef __SSE2__
    const __m128 magnitude = _mm_castsi128_ps(_mm_set1_epi32(0x7FFFFFFF));
    const __m128 full_scale = _mm_set1_ps(1.0f);
    __m128 beyond = _mm_setzero_ps();
    for (; index + 4 <= count; index += 4) {
        __m128 value = _mm_and_ps(_mm_loadu_ps(values + index), magnitude);
        beyond = _mm_or_ps(beyond, _mm_cmpgt_ps(value, full_scale));
    }
    if (_mm_movemask_ps(beyond))
        return 1;
#endif
    for (; index < count; index++)
        if (fabsf(values[index]) > 1.0f)
            return 1;
    return 0;
}

static void edgescribe_round(const float *values, short *pcm, int count)
{
    int index = 0;
#ifdef __SSE2__
    const __m128 scale = _mm_set1_ps(32768.0f);
    for (; index + 8 <= count; index += 8) {
        __m128i low = _mm_cvtps_epi32(_mm_mul_ps(_mm_loadu_ps(values + index), scale));
        __m128i high = _mm_cvtps_epi32(_mm_mul_ps(_mm_loadu_ps(values + index + 4), scale));
        _mm_storeu_si128((__m128i *)(pcm + index), _mm_packs_epi32(low, high));
    }
#endif
    for (; index < count; index++) {
        float value = values[index] * 32768.0f;
        value = value > -32768.0f ? value : -32768.0f;
        value = value < 32767.0f ? value : 32767.0f;
        pcm[index] = (short)lrintf(value);
    }
}

/* opus_decode without FEC of a packet that is not empty; `memory` holds a float for each channel,
   0 at first. */
static int edgescribe_decode(OpusDecoder *decoder, const unsigned char *packet, int packet_bytes,
                             short *pcm, int room, int channels, float *memory)
{
    float values[EDGESCRIBE_MOST_VALUES];
    int samples, count;
    if (room > EDGESCRIBE_MOST_VALUES / 2)
        room = EDGESCRIBE_MOST_VALUES / 2;
    samples = opus_decode_float(decoder, packet, packet_bytes, values, room, 0);
    if (samples <= 0)
        return samples;
    count = samples * channels;
    if (memory[0] != 0 || memory[channels - 1] != 0 || edgescribe_beyond_full_scale(values, count))
        opus_pcm_soft_clip(values, samples, channels, memory);
    edgescribe_round(values, pcm, count);
    return samples;
}

#endif
