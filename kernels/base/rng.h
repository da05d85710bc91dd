/* SPDX-License-Identifier: MIT
 * rng.h - splitmix64: the only source of random numbers, always seeded by the caller.
 *
 * Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014. */
#ifndef GGAUGE_RNG_H
#define GGAUGE_RNG_H

#include <math.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_u64(struct rng *r) {
    uint64_t z = r->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Uniform in (0, 1). */
static inline double rng_uniform(struct rng *r) {
    return ((double)(rng_u64(r) >> 11) + 0.5) * 0x1p-53;
}

/* Uniform integer in [0, n); n > 0. The bias of the multiplication is below 2^-32 for n < 2^32. */
static inline uint32_t rng_below(struct rng *r, uint32_t n) {
    return (uint32_t)(((rng_u64(r) >> 32) * n) >> 32);
}

/* Standard normal (Box and Muller, one of the pair). */
static inline double rng_normal(struct rng *r) {
    double u1 = rng_uniform(r), u2 = rng_uniform(r);
    return sqrt(-2.0 * log(u1)) * cos(6.283185307179586 * u2);
}

#endif
