/* What can go wrong, in words, and a few things that every file needs. */
#ifndef CPGA_STATUS_H
#define CPGA_STATUS_H

#include <stdint.h>

typedef enum cpga_status {
    CPGA_OK = 0,
    CPGA_ERR_MEMORY,
    CPGA_ERR_SIZE,
    CPGA_ERR_EDGE_RANGE,
    CPGA_ERR_EDGE_ORDER,
    CPGA_ERR_EDGE_TWICE,
    CPGA_ERR_CLASS_RANGE,
    CPGA_ERR_NEGATIVE,
    CPGA_ERR_DIAGONAL,
    CPGA_ERR_OVERFLOW,
    CPGA_ERR_RESOURCE,
    CPGA_ERR_SET,
    CPGA_ERR_NO_DEVICE,
    CPGA_ERR_NOT_TOPOLOGICAL,
    CPGA_ERR_DEVICE,
    CPGA_ERR_STATE,
    CPGA_ERR_VALUE,
    CPGA_ERR_BUDGET,
} cpga_status;

/* A sentence for each status; never NULL. */
const char *cpga_strerror(int status);

static inline int32_t cpga_imax(int32_t a, int32_t b) { return a > b ? a : b; }

static inline int32_t cpga_imin(int32_t a, int32_t b) { return a < b ? a : b; }

static inline int64_t cpga_max(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int64_t cpga_min(int64_t a, int64_t b) { return a < b ? a : b; }

/* calloc that never returns NULL for an empty array, and NULL where the size would overflow. */
void *cpga_calloc(int64_t count, int64_t size);

#endif
