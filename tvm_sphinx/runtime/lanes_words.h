/* The form in which Python hands a lane program over: int64 words, see `encode.py`. */
#ifndef TVM_SPHINX_LANES_WORDS_H_
#define TVM_SPHINX_LANES_WORDS_H_

#include <stddef.h>
#include <stdint.h>

#include "lanes_core.h"

/* First word; to be raised with every change of the form. */
#define LANES_WORDS_VERSION 3

/* Where a tensor lies: host memory, host memory that GPUs reach, and for each GPU its arena and its
 * weights. From `num_spaces` on they are slots, the inputs and outputs that are given with each
 * run. */
enum { LANES_ARENA = 0, LANES_WEIGHTS = 1, LANES_PINNED = 2, LANES_FIRST_CARD = 3 };

typedef struct {
    int32_t space;
    int32_t ndim;
    int64_t offset; /* bytes from the start of the space */
    int64_t bytes;
    uint8_t type_code, type_bits;
    uint16_t type_lanes;
    int64_t *shape, *strides;
} lanes_tensor;

enum lanes_step_kind { LANES_NOTHING = 0, LANES_CALL = 1, LANES_COPY = 2, LANES_FEED = 3 };

typedef struct {
    int32_t kind;
    int32_t function; /* of LANES_CALL; of LANES_FEED the segment */
    int32_t num_operands;
    int32_t *operands; /* tensors; of LANES_COPY: destination, source */
} lanes_step;

typedef struct {
    lanes_program program;
    int32_t num_tensors, num_slots, num_functions, num_spaces;
    int64_t *space_bytes; /* (num_spaces) */
    lanes_tensor *tensors;
    lanes_step *steps;
    void *blocks; /* everything above lies in these */
} lanes_words;

/* Read and check `words`. Tensors lie inside of their spaces; whether there is memory of the sizes
 * that the words tell is for the caller to see to. */
int lanes_words_alloc(const int64_t *words, size_t count, lanes_words *out);
void lanes_words_free(lanes_words *self);

#endif
