/* SPDX-License-Identifier: MIT
 * peak_avx512.c - peaks of AVX-512: multiply-adds of binary32, VNNI products of bytes, reading; see
 * peak_cell.h. */
#include <immintrin.h>

#include "base/compiler.h"
#include "peak_cell.h"

#define SUMS 12 /* hide a latency of 5 cycles at two operations a cycle */

static double f32_turns(int64_t turns) {
    const __m512 a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(1.0f);
    __m512 acc[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm512_setzero_ps();
    for (int64_t t = 0; t < turns; t++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            acc[i] = _mm512_fmadd_ps(a, b, acc[i]);
            STEP_BY_STEP(acc[i]);
        }
    }
    float lanes[SUMS * 16];
    double sum = 0;
    UNROLL
    for (int i = 0; i < SUMS; i++)
        _mm512_storeu_ps(lanes + 16 * i, acc[i]);
    for (size_t i = 0; i < N_ELEMS(lanes); i++)
        sum += (double)lanes[i];
    return sum;
}

static double i8_turns(int64_t turns) {
    const __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
    __m512i acc[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm512_setzero_si512();
    for (int64_t t = 0; t < turns; t++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
            STEP_BY_STEP(acc[i]);
        }
    }
    int32_t lanes[SUMS * 16];
    double sum = 0;
    UNROLL
    for (int i = 0; i < SUMS; i++)
        _mm512_storeu_si512(lanes + 16 * i, acc[i]);
    for (size_t i = 0; i < N_ELEMS(lanes); i++)
        sum += (double)lanes[i];
    return sum;
}

static uint64_t read_bytes(const void *p, size_t n_bytes) {
    const __m512i *v = p;
    __m512i s[4] = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                     _mm512_setzero_si512() };
    for (size_t i = 0; i < n_bytes / sizeof *v; i += 8) {
        UNROLL
        for (int k = 0; k < 8; k++)
            s[k % 4] = _mm512_xor_si512(s[k % 4], _mm512_load_si512(v + i + k));
    }
    const __m512i all =
        _mm512_xor_si512(_mm512_xor_si512(s[0], s[1]), _mm512_xor_si512(s[2], s[3]));
    uint64_t out[8], x = 0;
    _mm512_storeu_si512(out, all);
    for (int i = 0; i < 8; i++)
        x ^= out[i];
    return x;
}

const struct peak_cell peak_f32_avx512 = { .macs = SUMS * 16, .compute = f32_turns };
const struct peak_cell peak_i8_avx512 = { .macs = SUMS * 64, .compute = i8_turns };
const struct peak_cell peak_read_avx512 = { .read = read_bytes };
