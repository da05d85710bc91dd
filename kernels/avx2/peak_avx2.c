/* SPDX-License-Identifier: MIT
 * peak_avx2.c - peaks of AVX2: multiply-adds of binary32, products of bytes, reading; see
 * peak_cell.h.
 *
 * Twelve sums hide the latency of 4 or 5 cycles at two operations a cycle. The compiler must not
 * see that all turns are alike: STEP_BY_STEP lets it forget a register without an instruction. */
#include "peak_cell.h"
#include "simd_avx2.h"

#define SUMS 12

static double f32_turns(int64_t turns) {
    __m256 acc[SUMS], a = _mm256_set1_ps(1.0f);
    const __m256 b = _mm256_set1_ps(1.0f);
    UNROLL
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm256_setzero_ps();
    for (int64_t t = 0; t < turns; t++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            acc[i] = _mm256_fmadd_ps(a, b, acc[i]);
            STEP_BY_STEP(acc[i]);
        }
    }
    float lanes[SUMS * 8];
    double sum = 0;
    UNROLL
    for (int i = 0; i < SUMS; i++)
        _mm256_storeu_ps(lanes + 8 * i, acc[i]);
    for (size_t i = 0; i < N_ELEMS(lanes); i++)
        sum += (double)lanes[i];
    return sum;
}

/* AVX2 has no product of bytes that sums exactly: two instructions and an addition, as the cells
 * have it for signed weights. */
static double i8_turns(int64_t turns) {
    const __m256i ones = _mm256_set1_epi16(1), b = _mm256_set1_epi8(1);
    __m256i acc[SUMS], a = _mm256_set1_epi8(1);
    UNROLL
    for (int i = 0; i < SUMS; i++)
        acc[i] = _mm256_setzero_si256();
    for (int64_t t = 0; t < turns; t++) {
        UNROLL
        for (int i = 0; i < SUMS; i++) {
            STEP_BY_STEP(a);
            __m256i pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones);
            acc[i] = _mm256_add_epi32(acc[i], pairs);
            STEP_BY_STEP(acc[i]);
        }
    }
    int32_t lanes[SUMS * 8];
    double sum = 0;
    UNROLL
    for (int i = 0; i < SUMS; i++)
        _mm256_storeu_si256((__m256i *)(void *)(lanes + 8 * i), acc[i]);
    for (size_t i = 0; i < N_ELEMS(lanes); i++)
        sum += (double)lanes[i];
    return sum;
}

static uint64_t read_bytes(const void *p, size_t n_bytes) {
    const __m256i *v = p;
    __m256i s[4] = { _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                     _mm256_setzero_si256() };
    for (size_t i = 0; i < n_bytes / sizeof *v; i += 8) {
        UNROLL
        for (int k = 0; k < 8; k++)
            s[k % 4] = _mm256_xor_si256(s[k % 4], _mm256_load_si256(v + i + k));
    }
    const __m256i all =
        _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    uint64_t out[4], x = 0;
    _mm256_storeu_si256((__m256i *)(void *)out, all);
    for (int i = 0; i < 4; i++)
        x ^= out[i];
    return x;
}

const struct peak_cell peak_f32_avx2 = { .macs = SUMS * 8, .compute = f32_turns };
const struct peak_cell peak_i8_avx2 = { .macs = SUMS * 32, .compute = i8_turns };
const struct peak_cell peak_read_avx2 = { .read = read_bytes };
