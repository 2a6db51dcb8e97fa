#include "status.h"

#include <stdlib.h>

const char *cpga_strerror(int status) {
    switch (status) {
    case CPGA_OK:
        return "no error";
    case CPGA_ERR_MEMORY:
        return "out of memory";
    case CPGA_ERR_SIZE:
        return "expected at least one device and resource, sizes that fit int32, and "
               "classes x devices x devices below 2**31";
    case CPGA_ERR_EDGE_RANGE:
        return "expected edges between existing tasks";
    case CPGA_ERR_EDGE_ORDER:
        return "expected edges from a lower to a higher task (topological numbering)";
    case CPGA_ERR_EDGE_TWICE:
        return "expected unique edges; one is given twice";
    case CPGA_ERR_CLASS_RANGE:
        return "expected copy_class to name a row of copy_ns";
    case CPGA_ERR_NEGATIVE:
        return "expected times and bytes >= 0 (exec_ns and memory_bytes: >= -1)";
    case CPGA_ERR_DIAGONAL:
        return "expected copy_ns = 0 between a device and itself";
    case CPGA_ERR_OVERFLOW:
        return "expected all times, and all bytes, to sum below 2**62";
    case CPGA_ERR_RESOURCE:
        return "expected for each device one or more distinct resources in range";
    case CPGA_ERR_SET:
        return "expected labels that number non-empty sets from 0";
    case CPGA_ERR_NO_DEVICE:
        return "expected a device that can run all tasks of a set; one set has none";
    case CPGA_ERR_NOT_TOPOLOGICAL:
        return "expected a topological order of all tasks";
    case CPGA_ERR_DEVICE:
        return "expected for each task a device that can run it, the same for its whole set";
    case CPGA_ERR_STATE:
        return "expected up to two starts of a search, before it runs";
    case CPGA_ERR_VALUE:
        return "expected a parameter in its range";
    case CPGA_ERR_BUDGET:
        return "the work that was allowed is used up";
    default:
        return "unknown error";
    }
}

void *cpga_calloc(int64_t count, int64_t size) {
    if (count < 0 || size <= 0 || count > INT64_MAX / size)
        return NULL;
    return calloc(count > 0 ? (size_t)count : 1, (size_t)size);
}
