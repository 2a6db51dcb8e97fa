#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gpu_state.h"
#include "lanes_core.h"

/* What comes from memory that is not pinned goes to a GPU in pieces, so that one is copied to
 * pinned memory while the GPU takes the one before. */
enum { PIECE_BYTES = 256 << 10 };

/* How long a feeder looks at a counter without giving up its core: what it looks later by, once it
 * has, is little of this. */
enum { SPIN_NS = 20000000 };

/* --- errors ------------------------------------------------------------------------------------
 */

static const char *step_name(const gpu_lanes *self, int32_t step) {
    return self->words->step_names[step] < 0 ? "?"
                                             : self->options.names + self->words->step_names[step];
}

static int fail(gpu_lanes *self, CUresult error, const char *what, int32_t step) {
    if (atomic_exchange(&self->has_error, 1))
        return -1;
    char text[GPU_PART_BYTES];
    gpu_describe(self->cu, error, text, sizeof text);
    if (step >= 0)
        snprintf(self->error, sizeof self->error, "%s %s, in %s.", text, what,
                 step_name(self, step));
    else
        snprintf(self->error, sizeof self->error, "%s %s.", text, what);
    return -1;
}

/* What a library says of a call; always an error. */
static CUresult fail_call(gpu_lanes *self, const gpu_op *op, int status) {
    const gpu_library *library = self->libraries[self->words->product_libraries[op->number]];
    if (!atomic_exchange(&self->has_error, 1))
        snprintf(self->error, sizeof self->error, "cuBLASLt says %s when it was called, in %s.",
                 gpu_library_status(library, status), step_name(self, op->step));
    return -1;
}

const char *gpu_lanes_error(gpu_lanes *self) {
    return atomic_load(&self->has_error) ? self->error : NULL;
}

static int is_bad(CUresult error) { return error != CUDA_SUCCESS && error != CUDA_ERROR_NOT_READY; }

/* Nothing of a card is waited for any more: what was issued has ended, and all counters are at
 * their ends. */
static void release(gpu_lanes *self, int32_t index) {
    gpu_card *card = &self->cards[index];
    if (card->is_released)
        return;
    card->is_released = 1;
    for (int32_t i = 0; i < self->words->num_streams; i++)
        if (self->words->stream_cards[i] == index)
            (void)self->cu->cuStreamSynchronize(self->streams[i]);
    if (is_bad(self->cu->cuStreamSynchronize(card->main)))
        atomic_store(&self->is_lost, 1);
    for (int32_t i = 0; i < self->words->num_streams; i++)
        if (self->words->stream_cards[i] == index)
            atomic_store(gpu_lanes_counter(self, i), INT_MAX);
    atomic_store(card->done, INT_MAX);
}

/* An error that shows after the fact can be any step's of those that were under way. */
static int fail_late(gpu_lanes *self, int32_t index, CUresult error) {
    char where[GPU_PART_BYTES];
    const gpu_segment *segment = NULL;
    int32_t first = -1, last = -1;
    for (int32_t i = 0; i < self->words->num_segments; i++) {
        segment = &self->words->segments[i];
        for (int32_t k = 0;
             k < segment->num_ops && segment->card == index && i <= self->cards[index].segment;
             k++) {
            if (!gpu_is_work(&segment->ops[k]))
                continue;
            if (i == self->cards[index].segment && first < 0)
                first = segment->ops[k].step;
            last = segment->ops[k].step;
        }
    }
    int ordinal = self->words->ordinals[index];
    if (first >= 0)
        snprintf(where, sizeof where, "on cuda:%d, in one of the steps from %s to %s", ordinal,
                 step_name(self, first), step_name(self, last));
    else
        snprintf(where, sizeof where, "on cuda:%d", ordinal);
    fail(self, error, where, -1);
    atomic_store(&self->is_lost, 1);
    release(self, index);
    return -1;
}

int gpu_lanes_watch(gpu_lanes *self, int32_t index) {
    CUresult error = self->cu->cuStreamQuery(self->cards[index].main);
    return is_bad(error) ? fail_late(self, index, error) : 0;
}

/* --- one segment -------------------------------------------------------------------------------
 */

static CUresult write_counter(const gpu_lanes *self, CUstream stream, _Atomic uint32_t *to,
                              uint32_t value) {
    CUdeviceptr address = (CUdeviceptr)(uintptr_t)to;
    if (!self->writes_by_memset)
        return self->cu->cuStreamWriteValue32_v2(stream, address, value, 0);
    return self->cu->cuMemsetD32Async(address, value, 1, stream);
}

static CUresult copy(const gpu_lanes *self, const gpu_op *op) {
    int32_t to = op->operands[0], from = op->operands[1];
    size_t bytes = (size_t)self->lanes->tensors[to].bytes;
    CUdeviceptr target = gpu_address(self, to), source = gpu_address(self, from);
    if (!bytes)
        return CUDA_SUCCESS;
    if (self->lanes->tensors[from].space == LANES_PINNED)
        return self->cu->cuMemcpyHtoDAsync_v2(target, (const void *)(uintptr_t)source, bytes,
                                              self->streams[op->stream]);
    return self->cu->cuMemcpyDtoHAsync_v2((void *)(uintptr_t)target, source, bytes,
                                          self->streams[op->stream]);
}

static CUresult issue_op(gpu_lanes *self, const gpu_op *op, const gpu_op_state *state) {
    const gpu_driver *cu = self->cu;
    CUstream stream = self->streams[op->stream];
    switch (op->kind) {
    case GPU_LAUNCH:
        return cu->cuLaunchKernel(self->functions[op->number], op->grid[0], op->grid[1],
                                  op->grid[2], op->block[0], op->block[1], op->block[2],
                                  op->shared_bytes, stream, state->arguments, NULL);
    case GPU_CALL: {
        int status = gpu_product_issue(state->plan, stream);
        return status == 0 ? CUDA_SUCCESS : fail_call(self, op, status);
    }
    case GPU_COPY:
        return copy(self, op);
    case GPU_RECORD:
        return cu->cuEventRecord(self->events[op->number], stream);
    case GPU_WAIT:
        return cu->cuStreamWaitEvent(stream, self->events[op->number], 0);
    case GPU_WRITE:
        return write_counter(self, stream, gpu_lanes_counter(self, op->stream), op->value);
    default:
        return CUDA_SUCCESS;
    }
}

static int is_timed(const gpu_lanes *self, const gpu_op *op) {
    return self->stamps && gpu_is_work(op);
}

/* Whether an event is recorded in this very segment, rather than in one before it. */
static int is_inside(const gpu_segment *segment, const gpu_op *op) {
    for (const gpu_op *other = segment->ops; other < op; other++)
        if (other->kind == GPU_RECORD && other->number == op->number)
            return 1;
    return 0;
}

/* Issue the operations of a segment; in a capture, what came before it is over when the graph
 * begins. */
static int issue_ops(gpu_lanes *self, int32_t index, int is_capture) {
    const gpu_segment *segment = &self->words->segments[index];
    for (int32_t i = 0; i < segment->num_ops; i++) {
        const gpu_op *op = &segment->ops[i];
        const gpu_op_state *state = &self->segments[index].ops[i];
        if (op->kind == GPU_STAGE)
            continue;
        if (is_capture && op->kind == GPU_WAIT && !is_inside(segment, op))
            continue;
        if (is_capture && state->is_brought)
            continue;
        CUresult error = CUDA_SUCCESS;
        int timed = !is_capture && is_timed(self, op);
        if (timed)
            error = self->cu->cuEventRecord(state->begin, self->streams[op->stream]);
        if (error == CUDA_SUCCESS)
            error = issue_op(self, op, state);
        if (error == CUDA_SUCCESS && timed)
            error = self->cu->cuEventRecord(state->end, self->streams[op->stream]);
        if (error != CUDA_SUCCESS)
            return fail(self, error, "when it was issued", op->step);
    }
    return 0;
}

static int uses_stream(const gpu_segment *segment, int32_t stream) {
    for (int32_t i = 0; i < segment->num_ops; i++)
        if (segment->ops[i].stream == stream)
            return 1;
    return 0;
}

/* Let the main stream go on after the others: all of them, or those that a segment uses. */
static CUresult join(gpu_lanes *self, int32_t card, const gpu_segment *segment) {
    CUresult error = CUDA_SUCCESS;
    for (int32_t i = 0; i < self->words->num_streams && error == CUDA_SUCCESS; i++) {
        if (self->words->stream_cards[i] != card || (segment && !uses_stream(segment, i)))
            continue;
        error = self->cu->cuEventRecord(self->joins[i], self->streams[i]);
        if (error == CUDA_SUCCESS)
            error = self->cu->cuStreamWaitEvent(self->cards[card].main, self->joins[i], 0);
    }
    return error;
}

/* --- graphs ------------------------------------------------------------------------------------
 */

static CUresult capture_segment(gpu_lanes *self, int32_t index) {
    const gpu_driver *cu = self->cu;
    const gpu_segment *segment = &self->words->segments[index];
    gpu_card *card = &self->cards[segment->card];
    CUgraph graph = NULL;
    CUresult error = cu->cuStreamBeginCapture_v2(card->main, CU_STREAM_CAPTURE_MODE_RELAXED);
    if (error != CUDA_SUCCESS)
        return error;
    error = cu->cuEventRecord(card->fork, card->main);
    for (int32_t i = 0; i < self->words->num_streams && error == CUDA_SUCCESS; i++)
        if (uses_stream(segment, i))
            error = cu->cuStreamWaitEvent(self->streams[i], card->fork, 0);
    if (error == CUDA_SUCCESS && issue_ops(self, index, 1) != 0)
        error = -1;
    if (error == CUDA_SUCCESS)
        error = join(self, segment->card, segment);
    if (error == CUDA_SUCCESS && segment->is_last)
        error = write_counter(self, card->main, card->done, 1);
    CUresult ended = cu->cuStreamEndCapture(card->main, &graph);
    if (error == CUDA_SUCCESS)
        error = ended;
    if (error == CUDA_SUCCESS)
        error = cu->cuGraphInstantiateWithFlags(&self->segments[index].exec, graph, 0);
    if (graph)
        (void)cu->cuGraphDestroy(graph);
    if (error == CUDA_SUCCESS && cu->cuGraphUpload)
        error = cu->cuGraphUpload(self->segments[index].exec, card->main);
    return error;
}

static void drop_graphs(gpu_lanes *self) {
    for (int32_t i = 0; i < self->words->num_segments; i++) {
        if (self->segments[i].exec)
            (void)self->cu->cuGraphExecDestroy(self->segments[i].exec);
        self->segments[i].exec = NULL;
    }
    atomic_store(&self->has_error, 0);
}

static int has_streams(const gpu_segment *segment) {
    for (int32_t i = 0; i < segment->num_ops; i++)
        if (segment->ops[i].stream >= 0)
            return 1;
    return 0;
}

/* How many copies take what lies in a pinned tensor. */
static int num_takers(const gpu_lanes *self, int32_t tensor) {
    int count = 0;
    for (int32_t i = 0; i < self->words->num_segments; i++)
        for (int32_t k = 0; k < self->words->segments[i].num_ops; k++) {
            const gpu_op *op = &self->words->segments[i].ops[k];
            count += op->kind == GPU_COPY && op->operands[1] == tensor;
        }
    return count;
}

/* Take the copies of what is staged in a segment out of its graph, if anything is left there: the
 * source of a copy in a graph is fixed, and the caller's memory may be pinned itself. */
static void find_brought(gpu_lanes *self, int32_t index) {
    const gpu_segment *segment = &self->words->segments[index];
    gpu_op_state *states = self->segments[index].ops;
    int left = 0;
    for (int32_t i = 0; i < segment->num_ops; i++)
        left += gpu_is_work(&segment->ops[i]) && segment->ops[i].kind != GPU_COPY;
    for (int32_t i = 0; i < segment->num_ops && left; i++) {
        const gpu_op *op = &segment->ops[i];
        if (op->kind != GPU_STAGE || self->lanes->tensors[op->operands[0]].space != LANES_PINNED)
            continue;
        if (num_takers(self, op->operands[0]) != 1)
            continue;
        for (int32_t k = i + 1; k < segment->num_ops; k++)
            if (segment->ops[k].kind == GPU_COPY &&
                segment->ops[k].operands[1] == op->operands[0]) {
                states[i].brings = k;
                states[k].is_brought = 1;
            }
    }
}

static CUresult capture_all(gpu_lanes *self) {
    CUresult error = CUDA_SUCCESS;
    for (int32_t i = 0; i < self->words->num_segments && error == CUDA_SUCCESS; i++) {
        const gpu_segment *segment = &self->words->segments[i];
        if (!has_streams(segment))
            continue;
        error = self->cu->cuCtxSetCurrent(self->cards[segment->card].context);
        find_brought(self, i);
        if (error == CUDA_SUCCESS)
            error = capture_segment(self, i);
    }
    return error;
}

int gpu_lanes_capture(gpu_lanes *self, char why[GPU_MESSAGE_BYTES]) {
    CUcontext before = NULL;
    self->writes_by_memset = !self->cu->cuStreamWriteValue32_v2;
    CUresult error = self->cu->cuCtxGetCurrent(&before);
    if (error == CUDA_SUCCESS && self->options.use_graphs) {
        error = capture_all(self);
        if (error != CUDA_SUCCESS && !self->writes_by_memset) {
            /* A driver may know stream writes, but not in a graph. */
            drop_graphs(self);
            self->writes_by_memset = 1;
            error = capture_all(self);
        }
        (void)self->cu->cuCtxSetCurrent(before);
    }
    if (error == CUDA_SUCCESS)
        return 0;
    char text[GPU_PART_BYTES];
    gpu_describe(self->cu, error, text, sizeof text);
    snprintf(why, GPU_MESSAGE_BYTES, "The steps of a GPU cannot be made a graph: %.500s",
             atomic_load(&self->has_error) ? self->error : text);
    return -1;
}

/* --- traced runs -------------------------------------------------------------------------------
 */

/* Make the events of a segment that are not there yet. */
static CUresult make_timers(gpu_lanes *self, int32_t index) {
    const gpu_driver *cu = self->cu;
    const gpu_segment *segment = &self->words->segments[index];
    gpu_segment_state *state = &self->segments[index];
    CUresult error = cu->cuCtxSetCurrent(self->cards[segment->card].context);
    if (self->durations && !state->end && error == CUDA_SUCCESS) {
        error = cu->cuEventCreate(&state->begin, CU_EVENT_DEFAULT);
        if (error == CUDA_SUCCESS)
            error = cu->cuEventCreate(&state->end, CU_EVENT_DEFAULT);
    }
    for (int32_t k = 0; k < segment->num_ops && error == CUDA_SUCCESS; k++) {
        gpu_op_state *op = &state->ops[k];
        if (!is_timed(self, &segment->ops[k]) || op->end)
            continue;
        error = cu->cuEventCreate(&op->begin, CU_EVENT_DEFAULT);
        if (error == CUDA_SUCCESS)
            error = cu->cuEventCreate(&op->end, CU_EVENT_DEFAULT);
    }
    return error;
}

int gpu_lanes_begin(gpu_lanes *self, int64_t *stamps, int64_t *durations,
                    char why[GPU_MESSAGE_BYTES]) {
    int32_t num_counters = self->words->num_streams + self->words->num_cards;
    for (int32_t i = 0; i < num_counters; i++)
        atomic_store(gpu_lanes_counter(self, i), 0);
    for (int32_t i = 0; i < self->words->num_cards; i++) {
        self->cards[i].is_released = 0;
        self->cards[i].base_ns = 0;
    }
    self->stamps = stamps;
    self->durations = durations;
    atomic_store(&self->has_error, 0);
    if (!stamps && !durations)
        return 0;
    CUcontext before = NULL;
    CUresult error = self->cu->cuCtxGetCurrent(&before);
    for (int32_t i = 0; i < self->words->num_segments && error == CUDA_SUCCESS; i++)
        error = make_timers(self, i);
    (void)self->cu->cuCtxSetCurrent(before);
    if (error == CUDA_SUCCESS)
        return 0;
    char text[GPU_PART_BYTES];
    gpu_describe(self->cu, error, text, sizeof text);
    snprintf(why, GPU_MESSAGE_BYTES, "A run cannot be traced: %s.", text);
    return -1;
}

/* Events tell the time from one to another; what the host's clock says at the first is seen by the
 * counter that is written right after it. */
static CUresult begin_trace(gpu_lanes *self, gpu_card *card) {
    CUresult error = self->cu->cuEventRecord(card->base, card->main);
    if (error == CUDA_SUCCESS)
        error = write_counter(self, card->main, card->done, 1);
    while (error == CUDA_SUCCESS && !lanes_poll(card->done, 1, 1)) {
        error = self->cu->cuStreamQuery(card->main);
        if (!is_bad(error))
            error = CUDA_SUCCESS;
    }
    card->base_ns = lanes_now_ns();
    atomic_store(card->done, 0);
    return error;
}

static CUresult elapsed(const gpu_lanes *self, CUevent begin, CUevent end, int64_t *ns) {
    float milliseconds = 0;
    CUresult (*measure)(float *, CUevent, CUevent) = self->cu->cuEventElapsedTime_v2
                                                         ? self->cu->cuEventElapsedTime_v2
                                                         : self->cu->cuEventElapsedTime;
    CUresult error = measure(&milliseconds, begin, end);
    *ns = (int64_t)((double)milliseconds * 1e6);
    return error;
}

/* Steps of several kernels begin with the first and end with the last. */
static CUresult read_stamps(gpu_lanes *self, const gpu_card *card, const gpu_op *op,
                            const gpu_op_state *state) {
    int64_t begin = 0, end = 0, *stamps = &self->stamps[2 * op->step];
    CUresult error = elapsed(self, card->base, state->begin, &begin);
    if (error == CUDA_SUCCESS)
        error = elapsed(self, card->base, state->end, &end);
    if (!stamps[0])
        stamps[0] = card->base_ns + begin;
    stamps[1] = card->base_ns + end;
    return error;
}

static CUresult read_timers(gpu_lanes *self, int32_t index) {
    CUresult error = CUDA_SUCCESS;
    for (int32_t i = 0; i < self->words->num_segments && error == CUDA_SUCCESS; i++) {
        const gpu_segment *segment = &self->words->segments[i];
        const gpu_segment_state *state = &self->segments[i];
        if (segment->card != index || !has_streams(segment))
            continue;
        if (self->durations)
            error = elapsed(self, state->begin, state->end, &self->durations[i]);
        for (int32_t k = 0; k < segment->num_ops && error == CUDA_SUCCESS; k++)
            if (is_timed(self, &segment->ops[k]))
                error = read_stamps(self, &self->cards[index], &segment->ops[k], &state->ops[k]);
    }
    return error;
}

/* --- runs --------------------------------------------------------------------------------------
 */

int gpu_lanes_enter(gpu_lanes *self, int32_t index) {
    if (self->owner != getpid())
        return -1;
    return self->cu->cuCtxSetCurrent(self->cards[index].context) == CUDA_SUCCESS ? 0 : -1;
}

static void stage(gpu_lanes *self, const gpu_op *op) {
    int64_t *stamps = self->stamps ? &self->stamps[2 * op->step] : NULL;
    if (stamps)
        stamps[0] = lanes_now_ns();
    memcpy(self->options.host_address(self->options.user, op->operands[0]),
           self->options.host_address(self->options.user, op->operands[1]),
           (size_t)self->lanes->tensors[op->operands[0]].bytes);
    if (stamps)
        stamps[1] = lanes_now_ns();
}

static int is_pinned(const gpu_lanes *self, const void *memory) {
    unsigned type = 0;
    CUdeviceptr address = (CUdeviceptr)(uintptr_t)memory;
    return self->cu->cuPointerGetAttribute &&
           self->cu->cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) ==
               CUDA_SUCCESS &&
           type == CU_MEMORYTYPE_HOST;
}

/* A stage and its copy: from the caller's memory where that is pinned, else by way of ours. */
static int bring(gpu_lanes *self, int32_t index, const gpu_op *staged, const gpu_op *copied) {
    size_t bytes = (size_t)self->lanes->tensors[staged->operands[0]].bytes;
    const char *from = self->options.host_address(self->options.user, staged->operands[1]);
    char *between = self->options.host_address(self->options.user, staged->operands[0]);
    CUdeviceptr to = gpu_address(self, copied->operands[0]);
    CUstream stream = self->cards[self->words->segments[index].card].main;
    CUresult error = CUDA_SUCCESS;
    int direct = is_pinned(self, from);
    size_t piece = direct ? bytes : PIECE_BYTES;
    const char *source = direct ? from : between;
    for (size_t at = 0; at < bytes && error == CUDA_SUCCESS; at += piece) {
        size_t size = bytes - at < piece ? bytes - at : piece;
        if (!direct)
            memcpy(between + at, from + at, size);
        error = self->cu->cuMemcpyHtoDAsync_v2(to + at, source + at, size, stream);
    }
    return error == CUDA_SUCCESS ? 0 : fail(self, error, "when it was issued", copied->step);
}

static int issue_segment(gpu_lanes *self, int32_t index) {
    const gpu_segment *segment = &self->words->segments[index];
    gpu_card *card = &self->cards[segment->card];
    CUresult error = CUDA_SUCCESS;
    if (self->stamps && !card->base_ns)
        error = begin_trace(self, card);
    const gpu_segment_state *state = &self->segments[index];
    if (error == CUDA_SUCCESS && state->exec && !self->stamps) {
        if (self->durations)
            error = self->cu->cuEventRecord(state->begin, card->main);
        if (error == CUDA_SUCCESS)
            error = self->cu->cuGraphLaunch(state->exec, card->main); /* ends with `done` */
        if (error == CUDA_SUCCESS && self->durations)
            error = self->cu->cuEventRecord(state->end, card->main);
        return error == CUDA_SUCCESS ? 0 : fail(self, error, "when a graph was launched", -1);
    }
    if (error == CUDA_SUCCESS && issue_ops(self, index, 0) != 0)
        return -1;
    if (error == CUDA_SUCCESS && segment->is_last)
        error = join(self, segment->card, NULL);
    if (error == CUDA_SUCCESS && segment->is_last)
        error = write_counter(self, card->main, card->done, 1);
    return error == CUDA_SUCCESS ? 0 : fail(self, error, "when streams were joined", -1);
}

/* Wait until nothing of the run is left on the card. */
static int finish(gpu_lanes *self, int32_t index) {
    gpu_card *card = &self->cards[index];
    int64_t begin = lanes_now_ns();
    while (!lanes_poll(card->done, 1, lanes_now_ns() - begin < SPIN_NS))
        if (gpu_lanes_watch(self, index) != 0)
            return -1;
    if (card->is_released)
        return -1;
    CUresult error = CUDA_SUCCESS;
    if (self->durations)
        error = self->cu->cuStreamSynchronize(card->main); /* the last event comes after `done` */
    if (error == CUDA_SUCCESS && (self->stamps || self->durations))
        error = read_timers(self, index);
    return error == CUDA_SUCCESS ? 0 : fail(self, error, "when events were read", -1);
}

int gpu_lanes_feed(gpu_lanes *self, int32_t index) {
    const gpu_segment *segment = &self->words->segments[index];
    self->cards[segment->card].segment = index;
    int status = 0;
    const gpu_segment_state *state = &self->segments[index];
    int brings = state->exec && !self->stamps;
    for (int32_t i = 0; i < segment->num_ops && status == 0; i++) {
        const gpu_op *op = &segment->ops[i];
        if (op->kind != GPU_STAGE)
            continue;
        if (brings && state->ops[i].brings)
            status = bring(self, index, op, &segment->ops[state->ops[i].brings]);
        else
            stage(self, op);
    }
    if (status == 0 && has_streams(segment))
        status = issue_segment(self, index);
    if (status == 0 && segment->is_final)
        status = finish(self, segment->card);
    if (status != 0)
        release(self, segment->card);
    return status;
}

void gpu_lanes_skip(gpu_lanes *self, int32_t index) {
    release(self, self->words->segments[index].card);
}
