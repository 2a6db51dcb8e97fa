/* The GPUs of a lane program: their memory, streams and kernels, and what their feeders do in a
 * run.
 *
 * A feeder is a worker of `lanes_core.h`; its steps are the segments of `gpu_words.h`. A segment is
 * issued to the GPU's streams, or launched as the CUDA graph that was captured of it. Hand-overs
 * from a stream to the host are counters in pinned memory, which the stream writes; from the host
 * to a stream the feeder's own waits; from stream to stream events, which are edges of the graph.
 */
#ifndef TVM_SPHINX_GPU_LANES_H_
#define TVM_SPHINX_GPU_LANES_H_

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu_words.h"

typedef struct gpu_lanes gpu_lanes;

typedef struct {
    const lanes_words *lanes;
    const gpu_words *words;
    const char *names;          /* of kernels and steps, each ended by a zero byte */
    const void *const *images;  /* machine code */
    const void *const *weights; /* (num_cards) what goes into the memory of each GPU's weights */
    void *user;
    /* The address of a tensor in host memory, in a slot, or pinned. */
    void *(*host_address)(void *user, int32_t tensor);
    int use_graphs;
} gpu_options;

/* Of an error in full, and of the parts that it is put together from. */
enum { GPU_MESSAGE_BYTES = 600, GPU_PART_BYTES = 280 };

/* Open the GPUs, take their memory, upload weights, load kernels. What the options point to has to
 * outlive the object, but for images and weights. Returns nonzero with what is wrong in `why`. */
int gpu_lanes_alloc(const gpu_options *options, gpu_lanes **out, char why[GPU_MESSAGE_BYTES]);
/* Capture the graphs. Host addresses of pinned tensors are needed from here on. */
int gpu_lanes_capture(gpu_lanes *self, char why[GPU_MESSAGE_BYTES]);
void gpu_lanes_free(gpu_lanes *self);

/* Start of the pinned memory. */
void *gpu_lanes_pinned(const gpu_lanes *self);
_Atomic uint32_t *gpu_lanes_counter(const gpu_lanes *self, int32_t stream);

/* Whether a run may begin in this process; if not, why. */
int gpu_lanes_check(const gpu_lanes *self, char why[GPU_MESSAGE_BYTES]);
/* Before a run, while no feeder walks: counters at 0. With `stamps` (num_steps of the lanes, 2) the
 * run is issued without graphs, and begin and end of each step of a stream are written there, as of
 * `lanes_now_ns`; with `durations` (num_segments) how long the streams took for each segment, in
 * ns. Returns nonzero if there is no memory for that. */
int gpu_lanes_begin(gpu_lanes *self, int64_t *stamps, int64_t *durations,
                    char why[GPU_MESSAGE_BYTES]);

/* On a feeder's thread: before its first segment; a segment; in the place of a segment after an
 * error; and while it waits. Nonzero is an error, whose text `gpu_lanes_error` gives. */
int gpu_lanes_enter(gpu_lanes *self, int32_t card);
int gpu_lanes_feed(gpu_lanes *self, int32_t segment);
void gpu_lanes_skip(gpu_lanes *self, int32_t segment);
int gpu_lanes_watch(gpu_lanes *self, int32_t card);
/* The first error since the last call, or NULL; the text lives until the next run. */
const char *gpu_lanes_error(gpu_lanes *self);

#endif
