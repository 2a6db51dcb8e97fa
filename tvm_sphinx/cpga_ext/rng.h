/* Random numbers with owned state: xoshiro256**, seeded by splitmix64.
 *
 * Blackman, Vigna: "Scrambled linear pseudorandom number generators", ACM TOMS 47(4), 2021.
 * Bounded numbers are unbiased: Lemire, "Fast random integer generation in an interval",
 * ACM TOMACS 29(1), 2019. The same seed gives the same stream on every machine. */
#ifndef CPGA_RNG_H
#define CPGA_RNG_H

#include <stdint.h>

typedef struct cpga_rng {
    uint64_t s[4];
} cpga_rng;

/* Expand a 64-bit seed into a state; every seed is good, 0 included. */
void cpga_rng_seed(cpga_rng *self, uint64_t seed);

static inline uint64_t cpga_rng_rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

/* The next 64 random bits. */
static inline uint64_t cpga_rng_next(cpga_rng *self) {
    uint64_t *s = self->s;
    uint64_t result = cpga_rng_rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = cpga_rng_rotl(s[3], 45);
    return result;
}

/* A uniform integer in [0, bound); bound > 0. */
static inline uint32_t cpga_rng_below(cpga_rng *self, uint32_t bound) {
    uint64_t product = (cpga_rng_next(self) >> 32) * bound;
    if ((uint32_t)product < bound) {
        uint32_t threshold = (uint32_t)(-bound) % bound;
        while ((uint32_t)product < threshold)
            product = (cpga_rng_next(self) >> 32) * bound;
    }
    return (uint32_t)(product >> 32);
}

/* cpga_rng_below for the int32 indices that everything here uses; bound > 0. */
static inline int32_t cpga_rng_index(cpga_rng *self, int32_t bound) {
    return (int32_t)cpga_rng_below(self, (uint32_t)bound);
}

#endif
