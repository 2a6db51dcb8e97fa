/* What `gpu_lanes.c` (opening and closing) and `gpu_feed.c` (running) share. */
#ifndef TVM_SPHINX_GPU_STATE_H_
#define TVM_SPHINX_GPU_STATE_H_

#include <sys/types.h>

#include "gpu_driver.h"
#include "gpu_lanes.h"
#include "lanes_signal.h"

typedef struct {
    CUdevice device;
    CUcontext context;
    CUstream main; /* graphs are launched here, and all other streams joined */
    CUevent fork;  /* from which the other streams go on in a capture */
    CUevent base;  /* begin of a traced run */
    int64_t base_ns;
    CUdeviceptr memory[2];  /* arena, weights */
    _Atomic uint32_t *done; /* raised when nothing of a run is left */
    int32_t segment;        /* that was issued last */
    int is_released;        /* after an error: nobody waits for the GPU any more */
} gpu_card;

typedef struct {
    void **arguments; /* of a launch: addresses of `values` */
    CUdeviceptr *values;
    CUevent begin, end; /* of a traced run */
    int32_t brings;     /* of a stage: the copy that goes with it outside of the graph; 0 is none */
    int is_brought;     /* such a copy */
    gpu_product_plan *plan; /* of a call */
} gpu_op_state;

typedef struct {
    CUgraphExec exec;   /* NULL: issued anew in each run */
    CUevent begin, end; /* of a timed run */
    gpu_op_state *ops;
} gpu_segment_state;

struct gpu_lanes {
    const gpu_driver *cu;
    gpu_options options;
    const lanes_words *lanes;
    const gpu_words *words;
    pid_t owner;
    gpu_card *cards;
    CUstream *streams;
    CUevent *joins; /* (num_streams) end of a stream in a segment */
    CUevent *events;
    CUmodule *modules;
    CUfunction *functions;
    gpu_library **libraries;
    void **handles; /* (num_libraries, num_cards) */
    gpu_segment_state *segments;
    void *pinned;   /* tensors, and behind them the counters */
    char *counters; /* one for each stream, then one for each card, LANES_ALIGN bytes apart */
    int writes_by_memset;
    int64_t *stamps, *durations;
    _Atomic int has_error, is_lost;
    char error[GPU_MESSAGE_BYTES];
};

/* Whether an operation is a stream's work, rather than what orders it. */
static inline int gpu_is_work(const gpu_op *op) {
    return op->kind == GPU_LAUNCH || op->kind == GPU_CALL || op->kind == GPU_COPY;
}
/* The device address of a tensor that lies in a GPU's memory or in pinned memory. */
CUdeviceptr gpu_address(const gpu_lanes *self, int32_t tensor);
/* Text of an error, such as "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was
 * encountered)". */
void gpu_describe(const gpu_driver *cu, CUresult error, char *text, size_t size);

#endif
