/* What the feeders of GPUs do, as Python hands it over: int64 words, see `gpu_encode.py`. */
#ifndef TVM_SPHINX_GPU_WORDS_H_
#define TVM_SPHINX_GPU_WORDS_H_

#include <stddef.h>
#include <stdint.h>

#include "gpu_library.h"
#include "lanes_words.h"

/* First word; to be raised with every change of the form. */
#define GPU_WORDS_VERSION 2

enum gpu_op_kind {
    GPU_LAUNCH = 0, /* of a kernel on a stream */
    GPU_COPY = 1,   /* between pinned memory and a GPU's, on a stream */
    GPU_STAGE = 2,  /* between host memory and pinned memory, by the feeder itself */
    GPU_RECORD = 3, /* of an event on a stream */
    GPU_WAIT = 4,   /* of a stream for an event of the same GPU */
    GPU_WRITE = 5,  /* of a value into the counter of a stream */
    GPU_CALL = 6,   /* of a library's product, on a stream */
};

typedef struct {
    int32_t kind, stream, step;
    int32_t number; /* kernel, event or product */
    uint32_t value; /* that GPU_WRITE writes */
    uint32_t grid[3], block[3], shared_bytes;
    int32_t num_operands;
    /* tensors: arguments of the kernel; destination and source; A, B, D, workspace, and bias and
     * C as far as there are, of a product */
    int32_t *operands;
} gpu_op;

/* What a feeder does between two of its waits for others. */
typedef struct {
    int32_t card;
    int32_t is_last;  /* the last of its GPU that has anything for a stream to do */
    int32_t is_final; /* the last of its GPU */
    int32_t num_ops;
    gpu_op *ops;
} gpu_segment;

typedef struct {
    int32_t module;
    int64_t name; /* position in the names */
    uint32_t most_shared_bytes;
} gpu_kernel;

typedef struct {
    int64_t path; /* position in the names */
    int32_t major;
} gpu_library_name;

typedef struct {
    int32_t num_cards, num_streams, num_events, num_modules, num_kernels, num_segments;
    int32_t num_libraries, num_products;
    int32_t *ordinals;      /* (num_cards) */
    int32_t *stream_cards;  /* (num_streams) */
    int32_t *event_cards;   /* (num_events) */
    int32_t *module_cards;  /* (num_modules) */
    int32_t *module_images; /* (num_modules) */
    gpu_kernel *kernels;
    gpu_library_name *libraries;
    gpu_product *products;
    int32_t *product_libraries; /* (num_products) */
    gpu_segment *segments;
    int64_t *step_names; /* (num_steps of the lanes) positions in the names, or -1 */
    void *blocks;        /* everything above lies in these */
} gpu_words;

/* Read and check `words`, which speak of the tensors and steps of `lanes`; `num_images` and
 * `name_bytes` bound what they refer to. */
int gpu_words_alloc(const int64_t *words, size_t count, const lanes_words *lanes,
                    int32_t num_images, int64_t name_bytes, gpu_words *out);
void gpu_words_free(gpu_words *self);

#endif
