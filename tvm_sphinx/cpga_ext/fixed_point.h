/* Temperatures and acceptance in integers, so that no rounding mode can change a search. */
#ifndef CPGA_FIXED_POINT_H
#define CPGA_FIXED_POINT_H

#include "rng.h"

#define CPGA_LOG_ENTRIES 1024
#define CPGA_EXP_ENTRIES 256

/* Tables of -ln(u) and 2**-x with 16 fractional bits. */
typedef struct cpga_fixed_tables {
    int32_t minus_log[CPGA_LOG_ENTRIES];
    int32_t power[CPGA_EXP_ENTRIES];
} cpga_fixed_tables;

void cpga_fixed_init(cpga_fixed_tables *self);

/* log2 of a value >= 1, with 16 fractional bits. */
int64_t cpga_fixed_log2(uint64_t value);

/* From hot to cold along a geometric schedule; progress has 16 fractional bits, 0..65536. */
int64_t cpga_fixed_temperature(const cpga_fixed_tables *self, int64_t hot_ns, int64_t cold_ns,
                               int64_t progress);

/* How much worse than the present makespan a plan may be: temperature * -ln(u), so that it is
 * accepted with probability exp(-difference / temperature) (Kirkpatrick, Gelatt, Vecchi:
 * "Optimization by simulated annealing", Science 220, 1983). */
static inline int64_t cpga_fixed_allowance(const cpga_fixed_tables *self, cpga_rng *rng,
                                           int64_t temperature) {
    int64_t factor = self->minus_log[cpga_rng_next(rng) >> 54];
    return (temperature >> 16) * factor + (((temperature & 0xffff) * factor) >> 16);
}

#endif
