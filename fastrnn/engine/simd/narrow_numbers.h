/* Numbers of narrow types, one by one. */
#ifndef FRNN_NARROW_NUMBERS_H
#define FRNN_NARROW_NUMBERS_H

#include "targets.h"

static FRNN_INLINE float frnn_from_bits(uint32_t bits)
{
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

/* The bits of a float32 that is rounded to bfloat16, to the nearest, to even where two are as near. Denormals are
 * zeros, and a NaN stays one. */
static FRNN_INLINE uint32_t frnn_bfloat16_bits(float a)
{
    uint32_t bits, rounded;
    memcpy(&bits, &a, sizeof bits);
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    rounded = bits + 0x7FFF + (bits >> 16 & 1);
    rounded = magnitude > 0x7F800000 ? bits | 0x400000 : rounded;
    rounded = magnitude < 0x00800000 ? bits & 0x80000000 : rounded;
    return rounded & 0xFFFF0000;
}

static FRNN_INLINE uint16_t frnn_to_bfloat16(float a)
{
    return (uint16_t)(frnn_bfloat16_bits(a) >> 16);
}

static FRNN_INLINE float frnn_rounded_to_bfloat16(float a)
{
    return frnn_from_bits(frnn_bfloat16_bits(a));
}

/* A float32 as the sum of bfloat16 numbers, as bits: the number rounded, what is left of it rounded, and what is left
 * then. Nothing is left of infinities and NaN. */
typedef struct frnn_parts {
    uint32_t first, second, third;
} frnn_parts;

static FRNN_INLINE frnn_parts frnn_bfloat16_parts(float a)
{
    frnn_parts parts;
    float left;
    parts.first = frnn_bfloat16_bits(a);
    left = (parts.first & 0x7F800000) == 0x7F800000 ? 0 : a - frnn_from_bits(parts.first);
    parts.second = frnn_bfloat16_bits(left);
    parts.third = frnn_bfloat16_bits(left - frnn_from_bits(parts.second));
    return parts;
}

/* The whole number that is nearest to a, to even where two are as near, for |a| < 2^22. */
static FRNN_INLINE int32_t frnn_nearest(float a)
{
    const float rounded = a + 12582912.0f; /* 3/2 2^23: its lowest bit counts ones */
    int32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    return bits - 0x4B400000;
}

/* The bits of the largest magnitude. NaN and infinities have larger ones than all numbers. */
static FRNN_INLINE uint32_t frnn_largest_bits(ptrdiff_t count, const float *a)
{
    uint32_t largest = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, a + i, sizeof bits);
        bits &= 0x7FFFFFFF;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

#endif
