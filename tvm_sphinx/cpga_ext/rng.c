#include "rng.h"

static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void cpga_rng_seed(cpga_rng *self, uint64_t seed) {
    for (int i = 0; i < 4; i++)
        self->s[i] = splitmix64(&seed);
}
