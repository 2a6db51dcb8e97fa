#include "fixed_point.h"

/* ln(2) and 2**(-1/256) as fixed-point numbers with 16 and 32 fractional bits. */
#define LN2_Q16 45426
#define STEP_Q32 UINT64_C(4283353945)

int64_t cpga_fixed_log2(uint64_t value) {
    int64_t whole = 63;
    while ((value >> whole) == 0)
        whole--;
    uint64_t mantissa = whole > 31 ? value >> (whole - 31) : value << (31 - whole);
    int64_t result = whole;
    for (int bit = 0; bit < 16; bit++) {
        mantissa = (mantissa * mantissa) >> 31;
        result <<= 1;
        if (mantissa >> 32) {
            mantissa >>= 1;
            result |= 1;
        }
    }
    return result;
}

void cpga_fixed_init(cpga_fixed_tables *self) {
    for (int32_t i = 0; i < CPGA_LOG_ENTRIES; i++) {
        int64_t log2 = (INT64_C(11) << 16) - cpga_fixed_log2((uint64_t)(2 * i + 1));
        self->minus_log[i] = (int32_t)((log2 * LN2_Q16) >> 16);
    }
    uint64_t power = UINT64_C(1) << 31;
    for (int32_t i = 0; i < CPGA_EXP_ENTRIES; i++) {
        self->power[i] = (int32_t)(power >> 15);
        power = (power * STEP_Q32) >> 32;
    }
}

int64_t cpga_fixed_temperature(const cpga_fixed_tables *self, int64_t hot_ns, int64_t cold_ns,
                               int64_t progress) {
    if (hot_ns < 1)
        return 0;
    int64_t octaves =
        cpga_fixed_log2((uint64_t)hot_ns) - cpga_fixed_log2((uint64_t)(cold_ns > 0 ? cold_ns : 1));
    int64_t exponent = octaves > 0 ? (octaves * progress) >> 16 : 0;
    int64_t power = self->power[(exponent >> 8) & 255];
    int64_t scaled = hot_ns < (INT64_C(1) << 46) ? (hot_ns * power) >> 16 : (hot_ns >> 16) * power;
    return scaled >> (exponent >> 16);
}
