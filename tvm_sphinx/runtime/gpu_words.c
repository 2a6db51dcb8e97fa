#include "gpu_words.h"

#include <string.h>

#include "words_reader.h"

/* Of an extent or a stride of a product; what is computed of two of them cannot overflow. */
static const int64_t MOST_EXTENT = (int64_t)1 << 31;
enum {
    MOST_CARDS = 64,
    MOST_GRID_X = 0x7FFFFFFF,
    MOST_GRID = 65535,
    MOST_BLOCK = 1024,
    MOST_MAJOR = 1000
};

typedef struct {
    words_reader words;
    const lanes_words *lanes;
    gpu_words *out;
} reader;

static void refuse(reader *self) {
    if (self->words.status == LANES_OK)
        self->words.status = LANES_BAD_PROGRAM;
}

/* A space that `card` can reach, other than the slots and the host's own memory. */
static int reaches(const reader *self, int32_t card, int32_t tensor) {
    int32_t space = self->lanes->tensors[tensor].space;
    return space < self->lanes->num_spaces &&
           (space == LANES_PINNED || (space - LANES_FIRST_CARD) / 2 == card) &&
           space >= LANES_PINNED;
}

/* Whether matrices column by column, of so many elements of a type, lie within a tensor. */
static int fits(const reader *self, int32_t tensor, const gpu_product *product,
                const int64_t shape[2], int64_t leading, int64_t stride) {
    int64_t size = product->type == GPU_FLOAT16 ? 2 : 4;
    int64_t end = (product->batch - 1) * stride + (shape[1] - 1) * leading + shape[0];
    return leading >= shape[0] && end <= self->lanes->tensors[tensor].bytes / size;
}

static void check_product(reader *self, int32_t card, const gpu_op *op) {
    const gpu_product *p = &self->out->products[op->number];
    if (op->num_operands != 4 + p->has_bias + p->has_residual) {
        refuse(self);
        return;
    }
    const int64_t a[] = {p->transposed_a ? p->depth : p->rows,
                         p->transposed_a ? p->rows : p->depth},
                  b[] = {p->transposed_b ? p->columns : p->depth,
                         p->transposed_b ? p->depth : p->columns},
                  d[] = {p->rows, p->columns}, bias[] = {p->rows, 1};
    for (int32_t i = 0; i < op->num_operands; i++)
        if (!reaches(self, card, op->operands[i]) ||
            self->lanes->tensors[op->operands[i]].space == LANES_PINNED)
            refuse(self);
    if (!fits(self, op->operands[0], p, a, p->leading_a, p->stride_a) ||
        !fits(self, op->operands[1], p, b, p->leading_b, p->stride_b) ||
        !fits(self, op->operands[2], p, d, p->leading_d, p->stride_d) ||
        (p->has_bias && !fits(self, op->operands[4], p, bias, p->rows, 0)) ||
        (p->has_residual &&
         !fits(self, op->operands[4 + p->has_bias], p, d, p->leading_d, p->stride_d)) ||
        p->workspace_bytes > self->lanes->tensors[op->operands[3]].bytes)
        refuse(self);
}

static void check_operands(reader *self, int32_t card, const gpu_op *op) {
    const lanes_tensor *tensors = self->lanes->tensors;
    if (op->kind == GPU_CALL) {
        check_product(self, card, op);
        return;
    }
    if (op->kind == GPU_LAUNCH) {
        for (int32_t i = 0; i < op->num_operands; i++)
            if (!reaches(self, card, op->operands[i]))
                refuse(self);
        return;
    }
    const lanes_tensor *to = &tensors[op->operands[0]], *from = &tensors[op->operands[1]];
    if (to->bytes != from->bytes)
        refuse(self);
    if (op->kind == GPU_COPY) {
        if (!reaches(self, card, op->operands[0]) || !reaches(self, card, op->operands[1]))
            refuse(self);
        if ((to->space == LANES_PINNED) == (from->space == LANES_PINNED))
            refuse(self);
    } else {
        int32_t first = LANES_FIRST_CARD, after = self->lanes->num_spaces;
        if ((to->space >= first && to->space < after) ||
            (from->space >= first && from->space < after))
            refuse(self);
    }
}

static void read_launch(reader *self, gpu_op *op) {
    op->number = words_int(&self->words, 0, self->out->num_kernels);
    for (int i = 0; i < 3; i++)
        op->grid[i] =
            (uint32_t)words_take(&self->words, 1, (i ? MOST_GRID : (int64_t)MOST_GRID_X) + 1);
    for (int i = 0; i < 3; i++)
        op->block[i] = (uint32_t)words_take(&self->words, 1, MOST_BLOCK + 1);
    op->shared_bytes = (uint32_t)words_take(&self->words, 0, WORDS_MOST);
}

static void read_op(reader *self, int32_t card, gpu_op *op) {
    gpu_words *out = self->out;
    op->kind = words_int(&self->words, GPU_LAUNCH, GPU_CALL + 1);
    op->step = words_int(&self->words, 0, self->lanes->program.num_steps);
    op->stream = op->kind == GPU_STAGE ? -1 : words_int(&self->words, 0, out->num_streams);
    if (self->words.status == LANES_OK && op->stream >= 0 && out->stream_cards[op->stream] != card)
        refuse(self);
    if (op->kind == GPU_RECORD || op->kind == GPU_WAIT) {
        op->number = words_int(&self->words, 0, out->num_events);
        if (self->words.status == LANES_OK && out->event_cards[op->number] != card)
            refuse(self);
        return;
    }
    if (op->kind == GPU_WRITE) {
        op->value = (uint32_t)words_take(&self->words, 1, WORDS_MOST);
        return;
    }
    if (op->kind == GPU_LAUNCH)
        read_launch(self, op);
    if (op->kind == GPU_CALL)
        op->number = words_int(&self->words, 0, out->num_products);
    op->operands = words_list(&self->words, &op->num_operands, self->lanes->num_tensors);
    if ((op->kind == GPU_COPY || op->kind == GPU_STAGE) && op->num_operands != 2)
        refuse(self);
    if (self->words.status == LANES_OK)
        check_operands(self, card, op);
}

static void read_segment(reader *self, gpu_segment *segment) {
    segment->card = words_int(&self->words, 0, self->out->num_cards);
    segment->is_last = words_int(&self->words, 0, 2);
    segment->is_final = words_int(&self->words, 0, 2);
    segment->num_ops = words_count(&self->words);
    segment->ops = words_memory(&self->words, (size_t)segment->num_ops, sizeof *segment->ops);
    for (int32_t i = 0; i < segment->num_ops && self->words.status == LANES_OK; i++)
        read_op(self, segment->card, &segment->ops[i]);
}

static void read_kernels(reader *self, int64_t name_bytes) {
    gpu_words *out = self->out;
    out->num_kernels = words_count(&self->words);
    out->kernels = words_memory(&self->words, (size_t)out->num_kernels, sizeof *out->kernels);
    for (int32_t i = 0; i < out->num_kernels && self->words.status == LANES_OK; i++) {
        gpu_kernel *kernel = &out->kernels[i];
        kernel->module = words_int(&self->words, 0, out->num_modules);
        kernel->name = words_take(&self->words, 0, name_bytes);
        kernel->most_shared_bytes = (uint32_t)words_take(&self->words, 0, WORDS_MOST);
    }
}

static void read_libraries(reader *self, int64_t name_bytes) {
    gpu_words *out = self->out;
    out->num_libraries = words_count(&self->words);
    out->libraries = words_memory(&self->words, (size_t)out->num_libraries, sizeof *out->libraries);
    for (int32_t i = 0; i < out->num_libraries && self->words.status == LANES_OK; i++) {
        out->libraries[i].path = words_take(&self->words, 0, name_bytes);
        out->libraries[i].major = words_int(&self->words, 1, MOST_MAJOR);
    }
}

static void read_product(reader *self, gpu_product *product) {
    words_reader *words = &self->words;
    product->type = words_int(words, GPU_FLOAT32, GPU_FLOAT16 + 1);
    product->activation = words_int(words, GPU_LINEAR, GPU_GELU_TANH + 1);
    uint32_t scale = (uint32_t)words_take(words, 0, (int64_t)1 << 32);
    memcpy(&product->scale, &scale, sizeof scale);
    int64_t *const sizes[] = {&product->rows, &product->columns, &product->depth, &product->batch};
    for (int i = 0; i < 4; i++)
        *sizes[i] = words_take(words, 1, MOST_EXTENT);
    product->transposed_a = words_int(words, 0, 2);
    product->transposed_b = words_int(words, 0, 2);
    int64_t *const steps[] = {&product->leading_a,      &product->leading_b, &product->leading_d,
                              &product->stride_a,       &product->stride_b,  &product->stride_d,
                              &product->workspace_bytes};
    for (int i = 0; i < 7; i++)
        *steps[i] = words_take(words, 0, MOST_EXTENT);
    product->has_bias = words_int(words, 0, 2);
    product->has_residual = words_int(words, 0, 2);
}

static void read_products(reader *self) {
    gpu_words *out = self->out;
    size_t count = (size_t)(out->num_products = words_count(&self->words));
    out->products = words_memory(&self->words, count, sizeof *out->products);
    out->product_libraries = words_memory(&self->words, count, sizeof *out->product_libraries);
    for (size_t i = 0; i < count && self->words.status == LANES_OK; i++) {
        out->product_libraries[i] = words_int(&self->words, 0, out->num_libraries);
        read_product(self, &out->products[i]);
    }
}

static void read_modules(reader *self, int32_t num_images) {
    gpu_words *out = self->out;
    out->num_modules = words_count(&self->words);
    out->module_cards =
        words_memory(&self->words, (size_t)out->num_modules, sizeof *out->module_cards);
    out->module_images =
        words_memory(&self->words, (size_t)out->num_modules, sizeof *out->module_images);
    for (int32_t i = 0; i < out->num_modules && self->words.status == LANES_OK; i++) {
        out->module_cards[i] = words_int(&self->words, 0, out->num_cards);
        out->module_images[i] = words_int(&self->words, 0, num_images);
    }
}

static void check_feeds(reader *self) {
    const lanes_words *lanes = self->lanes;
    for (int32_t i = 0; i < lanes->program.num_steps; i++)
        if (lanes->steps[i].kind == LANES_FEED &&
            lanes->steps[i].function >= self->out->num_segments)
            refuse(self);
}

int gpu_words_alloc(const int64_t *words, size_t count, const lanes_words *lanes,
                    int32_t num_images, int64_t name_bytes, gpu_words *out) {
    *out = (gpu_words){0};
    reader self = {
        .words = {words, words + count, &out->blocks, LANES_OK}, .lanes = lanes, .out = out};
    words_take(&self.words, GPU_WORDS_VERSION, GPU_WORDS_VERSION + 1);
    out->ordinals = words_list(&self.words, &out->num_cards, MOST_CARDS);
    if (out->num_cards != (lanes->num_spaces - LANES_FIRST_CARD) / 2)
        refuse(&self);
    out->stream_cards = words_list(&self.words, &out->num_streams, out->num_cards);
    out->event_cards = words_list(&self.words, &out->num_events, out->num_cards);
    if (out->num_streams != lanes->program.num_counters)
        refuse(&self);
    if (self.words.status == LANES_OK)
        read_modules(&self, num_images);
    if (self.words.status == LANES_OK)
        read_kernels(&self, name_bytes);
    if (self.words.status == LANES_OK)
        read_libraries(&self, name_bytes);
    if (self.words.status == LANES_OK)
        read_products(&self);
    out->num_segments = words_count(&self.words);
    out->segments = words_memory(&self.words, (size_t)out->num_segments, sizeof *out->segments);
    for (int32_t i = 0; i < out->num_segments && self.words.status == LANES_OK; i++)
        read_segment(&self, &out->segments[i]);
    size_t num_steps = (size_t)lanes->program.num_steps;
    out->step_names = words_memory(&self.words, num_steps, sizeof *out->step_names);
    for (size_t i = 0; i < num_steps && self.words.status == LANES_OK; i++)
        out->step_names[i] = words_take(&self.words, -1, name_bytes);
    if (self.words.status == LANES_OK)
        check_feeds(&self);
    if (self.words.status == LANES_OK && self.words.next != self.words.end)
        refuse(&self);
    if (self.words.status != LANES_OK)
        gpu_words_free(out);
    return self.words.status;
}

void gpu_words_free(gpu_words *self) {
    words_free(&self->blocks);
    *self = (gpu_words){0};
}
