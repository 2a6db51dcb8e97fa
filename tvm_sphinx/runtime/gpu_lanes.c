#include "gpu_lanes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu_state.h"

void gpu_describe(const gpu_driver *cu, CUresult error, char *text, size_t size) {
    const char *name = NULL, *meaning = NULL;
    cu->cuGetErrorName(error, &name);
    cu->cuGetErrorString(error, &meaning);
    snprintf(text, size, "%s (%s)", name ? name : "an unknown CUDA error",
             meaning ? meaning : "no description");
}

static int refuse(const gpu_lanes *self, CUresult error, const char *what, char *why) {
    char text[GPU_PART_BYTES];
    gpu_describe(self->cu, error, text, sizeof text);
    snprintf(why, GPU_MESSAGE_BYTES, "%s: %s.", what, text);
    return -1;
}

/* --- opening -----------------------------------------------------------------------------------
 */

static int open_card(gpu_lanes *self, int32_t index, char *why) {
    const gpu_driver *cu = self->cu;
    gpu_card *card = &self->cards[index];
    int ordinal = self->words->ordinals[index], count = 0;
    CUresult error = cu->cuDeviceGetCount(&count);
    if (error == CUDA_SUCCESS && ordinal >= count) {
        snprintf(why, GPU_MESSAGE_BYTES, "Expected a machine with GPU cuda:%d; this one has %d.",
                 ordinal, count);
        return -1;
    }
    if (error == CUDA_SUCCESS)
        error = cu->cuDeviceGet(&card->device, ordinal);
    if (error == CUDA_SUCCESS)
        error = cu->cuDevicePrimaryCtxRetain(&card->context, card->device);
    if (error == CUDA_SUCCESS)
        error = cu->cuCtxSetCurrent(card->context);
    if (error == CUDA_SUCCESS)
        error = cu->cuStreamCreate(&card->main, CU_STREAM_NON_BLOCKING);
    if (error == CUDA_SUCCESS)
        error = cu->cuEventCreate(&card->fork, CU_EVENT_DISABLE_TIMING);
    if (error == CUDA_SUCCESS)
        error = cu->cuEventCreate(&card->base, CU_EVENT_DEFAULT);
    if (error == CUDA_SUCCESS)
        return 0;
    if (error == CUDA_ERROR_DEVICE_UNAVAILABLE) {
        snprintf(why, GPU_MESSAGE_BYTES,
                 "GPU cuda:%d is in use by another process, and its compute mode (nvidia-smi -q -d "
                 "COMPUTE) lets one at a time use it.",
                 ordinal);
        return -1;
    }
    char what[64];
    snprintf(what, sizeof what, "GPU cuda:%d cannot be opened", ordinal);
    return refuse(self, error, what, why);
}

static int refuse_memory(const gpu_lanes *self, CUresult error, const char *what, int64_t bytes,
                         int ordinal, char *why) {
    size_t available = 0, total = 0;
    char text[GPU_PART_BYTES];
    if (error != CUDA_ERROR_OUT_OF_MEMORY ||
        self->cu->cuMemGetInfo_v2(&available, &total) != CUDA_SUCCESS) {
        snprintf(text, sizeof text, "No memory for %s (%lld bytes) of cuda:%d", what,
                 (long long)bytes, ordinal);
        return refuse(self, error, text, why);
    }
    snprintf(why, GPU_MESSAGE_BYTES,
             "Expected %lld bytes for %s on cuda:%d; %zu of its %zu are free.", (long long)bytes,
             what, ordinal, available, total);
    return -1;
}

static int take_card_memory(gpu_lanes *self, int32_t index, char *why) {
    static const char *const names[] = {"the tensors between kernels", "the weights"};
    const gpu_driver *cu = self->cu;
    gpu_card *card = &self->cards[index];
    int ordinal = self->words->ordinals[index];
    if (cu->cuCtxSetCurrent(card->context) != CUDA_SUCCESS)
        return refuse(self, CUDA_ERROR_INVALID_DEVICE, "No context", why);
    for (int i = 0; i < 2; i++) {
        int64_t bytes = self->lanes->space_bytes[LANES_FIRST_CARD + 2 * index + i];
        if (!bytes)
            continue;
        CUresult error = cu->cuMemAlloc_v2(&card->memory[i], (size_t)bytes);
        if (error != CUDA_SUCCESS)
            return refuse_memory(self, error, names[i], bytes, ordinal, why);
    }
    size_t bytes = (size_t)self->lanes->space_bytes[LANES_FIRST_CARD + 2 * index + 1];
    if (!bytes)
        return 0;
    CUresult error =
        cu->cuMemcpyHtoDAsync_v2(card->memory[1], self->options.weights[index], bytes, card->main);
    if (error == CUDA_SUCCESS)
        error = cu->cuStreamSynchronize(card->main);
    return error == CUDA_SUCCESS ? 0 : refuse(self, error, "The weights cannot be uploaded", why);
}

static int take_pinned_memory(gpu_lanes *self, char *why) {
    size_t tensors = ((size_t)self->lanes->space_bytes[LANES_PINNED] + LANES_ALIGN - 1) /
                     LANES_ALIGN * LANES_ALIGN;
    size_t counters = (size_t)(self->words->num_streams + self->words->num_cards) * LANES_ALIGN;
    CUresult error =
        self->cu->cuMemHostAlloc(&self->pinned, tensors + counters, CU_MEMHOSTALLOC_PORTABLE);
    if (error != CUDA_SUCCESS) {
        char what[96];
        snprintf(what, sizeof what, "No pinned memory for %zu bytes of tensors that cross to a GPU",
                 tensors);
        return refuse(self, error, what, why);
    }
    memset(self->pinned, 0, tensors + counters);
    self->counters = (char *)self->pinned + tensors;
    for (int32_t i = 0; i < self->words->num_cards; i++)
        self->cards[i].done = gpu_lanes_counter(self, self->words->num_streams + i);
    return 0;
}

static int make_streams(gpu_lanes *self, char *why) {
    const gpu_driver *cu = self->cu;
    CUresult error = CUDA_SUCCESS;
    for (int32_t i = 0; i < self->words->num_streams && error == CUDA_SUCCESS; i++) {
        error = cu->cuCtxSetCurrent(self->cards[self->words->stream_cards[i]].context);
        if (error == CUDA_SUCCESS)
            error = cu->cuStreamCreate(&self->streams[i], CU_STREAM_NON_BLOCKING);
        if (error == CUDA_SUCCESS)
            error = cu->cuEventCreate(&self->joins[i], CU_EVENT_DISABLE_TIMING);
    }
    for (int32_t i = 0; i < self->words->num_events && error == CUDA_SUCCESS; i++) {
        error = cu->cuCtxSetCurrent(self->cards[self->words->event_cards[i]].context);
        if (error == CUDA_SUCCESS)
            error = cu->cuEventCreate(&self->events[i], CU_EVENT_DISABLE_TIMING);
    }
    return error == CUDA_SUCCESS ? 0
                                 : refuse(self, error, "A stream or an event cannot be made", why);
}

static int load_modules(gpu_lanes *self, char *why) {
    const gpu_driver *cu = self->cu;
    for (int32_t i = 0; i < self->words->num_modules; i++) {
        gpu_card *card = &self->cards[self->words->module_cards[i]];
        CUresult error = cu->cuCtxSetCurrent(card->context);
        if (error == CUDA_SUCCESS)
            error = cu->cuModuleLoadData(&self->modules[i],
                                         self->options.images[self->words->module_images[i]]);
        if (error == CUDA_ERROR_NO_BINARY_FOR_GPU) {
            char name[96] = "";
            int major = 0, minor = 0;
            (void)cu->cuDeviceGetName(name, sizeof name, card->device);
            (void)cu->cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                                           card->device);
            (void)cu->cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                                           card->device);
            snprintf(why, GPU_MESSAGE_BYTES,
                     "The kernels are machine code of another GPU than cuda:%d, %s (sm_%d%d): "
                     "compile the model for it.",
                     self->words->ordinals[self->words->module_cards[i]], name, major, minor);
            return -1;
        }
        if (error == CUDA_ERROR_INVALID_IMAGE) {
            int version = 0;
            (void)cu->cuDriverGetVersion(&version);
            snprintf(why, GPU_MESSAGE_BYTES,
                     "The driver, which knows CUDA %d.%d, cannot read the kernels' machine code: "
                     "compile "
                     "the model with the nvcc of that CUDA, or update the driver.",
                     version / 1000, version % 1000 / 10);
            return -1;
        }
        if (error != CUDA_SUCCESS)
            return refuse(self, error, "The GPU's kernels cannot be loaded", why);
    }
    for (int32_t i = 0; i < self->words->num_kernels; i++) {
        const gpu_kernel *kernel = &self->words->kernels[i];
        CUresult error =
            cu->cuCtxSetCurrent(self->cards[self->words->module_cards[kernel->module]].context);
        if (error == CUDA_SUCCESS)
            error = cu->cuModuleGetFunction(&self->functions[i], self->modules[kernel->module],
                                            self->options.names + kernel->name);
        if (error == CUDA_SUCCESS && kernel->most_shared_bytes)
            error = cu->cuFuncSetAttribute(self->functions[i],
                                           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                           (int)kernel->most_shared_bytes);
        /* Else the driver does it at the first launch, which may be in a capture. */
        if (error == CUDA_SUCCESS && cu->cuFuncLoad)
            error = cu->cuFuncLoad(self->functions[i]);
        if (error != CUDA_SUCCESS)
            return refuse(self, error, self->options.names + kernel->name, why);
    }
    return 0;
}

/* --- libraries ---------------------------------------------------------------------------------
 */

static int refuse_call(const gpu_library *library, int status, const char *what, char *why) {
    snprintf(why, GPU_MESSAGE_BYTES, "%s: cuBLASLt says %s.", what,
             gpu_library_status(library, status));
    return -1;
}

/* One handle for each GPU; before the memory, of which it takes a little. */
static int open_libraries(gpu_lanes *self, char *why) {
    const gpu_words *words = self->words;
    for (int32_t i = 0; i < words->num_libraries; i++) {
        const char *path = self->options.names + words->libraries[i].path;
        char reason[GPU_PART_BYTES];
        if (gpu_library_open(path, words->libraries[i].major, &self->libraries[i], reason,
                             sizeof reason) != 0) {
            snprintf(why, GPU_MESSAGE_BYTES, "The library %.200s cannot be used: %s.", path,
                     reason);
            return -1;
        }
        for (int32_t card = 0; card < words->num_cards; card++) {
            int status = -1;
            if (self->cu->cuCtxSetCurrent(self->cards[card].context) == CUDA_SUCCESS)
                status = gpu_library_handle(self->libraries[i],
                                            &self->handles[i * words->num_cards + card]);
            if (status != 0)
                return refuse_call(self->libraries[i], status,
                                   "The library of products does not start", why);
        }
    }
    return 0;
}

/* Plan a call with the algorithm that it takes from now on. */
static int plan_call(gpu_lanes *self, int32_t card, const gpu_op *op, gpu_product_plan **out,
                     char *why) {
    int32_t library = self->words->product_libraries[op->number];
    gpu_product_memory memory = {
        .a = gpu_address(self, op->operands[0]),
        .b = gpu_address(self, op->operands[1]),
        .d = gpu_address(self, op->operands[2]),
        .workspace = gpu_address(self, op->operands[3]),
    };
    const gpu_product *product = &self->words->products[op->number];
    int next = 4;
    if (product->has_bias)
        memory.bias = gpu_address(self, op->operands[next++]);
    if (product->has_residual)
        memory.c = gpu_address(self, op->operands[next]);
    int status = gpu_product_make(self->libraries[library],
                                  self->handles[library * self->words->num_cards + card], product,
                                  &memory, out);
    if (status == 0)
        return 0;
    char what[GPU_PART_BYTES];
    int64_t name = self->words->step_names[op->step];
    snprintf(what, sizeof what, "The product of step %.100s cannot be planned",
             name < 0 ? "?" : self->options.names + name);
    return refuse_call(self->libraries[library], status, what, why);
}

static int plan_calls(gpu_lanes *self, char *why) {
    for (int32_t i = 0; i < self->words->num_segments; i++) {
        const gpu_segment *segment = &self->words->segments[i];
        if (self->cu->cuCtxSetCurrent(self->cards[segment->card].context) != CUDA_SUCCESS)
            return refuse(self, CUDA_ERROR_INVALID_DEVICE, "No context", why);
        for (int32_t k = 0; k < segment->num_ops; k++)
            if (segment->ops[k].kind == GPU_CALL &&
                plan_call(self, segment->card, &segment->ops[k], &self->segments[i].ops[k].plan,
                          why) != 0)
                return -1;
    }
    return 0;
}

/* --- tables ------------------------------------------------------------------------------------
 */

static int refuse_host_memory(char *why) {
    snprintf(why, GPU_MESSAGE_BYTES, "There is no memory left.");
    return -1;
}

static int make_tables(gpu_lanes *self, char *why) {
    const gpu_words *words = self->words;
    self->cards = calloc((size_t)words->num_cards + 1, sizeof *self->cards);
    self->streams = calloc((size_t)words->num_streams + 1, sizeof *self->streams);
    self->joins = calloc((size_t)words->num_streams + 1, sizeof *self->joins);
    self->events = calloc((size_t)words->num_events + 1, sizeof *self->events);
    self->modules = calloc((size_t)words->num_modules + 1, sizeof *self->modules);
    self->functions = calloc((size_t)words->num_kernels + 1, sizeof *self->functions);
    self->segments = calloc((size_t)words->num_segments + 1, sizeof *self->segments);
    size_t num_libraries = (size_t)words->num_libraries;
    self->libraries = calloc(num_libraries + 1, sizeof *self->libraries);
    self->handles = calloc(num_libraries * (size_t)words->num_cards + 1, sizeof *self->handles);
    if (!self->cards || !self->streams || !self->joins || !self->events || !self->modules ||
        !self->functions || !self->segments || !self->libraries || !self->handles)
        return refuse_host_memory(why);
    for (int32_t i = 0; i < words->num_segments; i++) {
        self->segments[i].ops =
            calloc((size_t)words->segments[i].num_ops + 1, sizeof *self->segments[i].ops);
        if (!self->segments[i].ops)
            return refuse_host_memory(why);
    }
    return 0;
}

CUdeviceptr gpu_address(const gpu_lanes *self, int32_t tensor) {
    const lanes_tensor *found = &self->lanes->tensors[tensor];
    if (found->space == LANES_PINNED)
        return (CUdeviceptr)(uintptr_t)self->pinned + (CUdeviceptr)found->offset;
    int32_t number = found->space - LANES_FIRST_CARD;
    return self->cards[number / 2].memory[number % 2] + (CUdeviceptr)found->offset;
}

static int make_arguments(gpu_lanes *self, char *why) {
    for (int32_t i = 0; i < self->words->num_segments; i++)
        for (int32_t k = 0; k < self->words->segments[i].num_ops; k++) {
            const gpu_op *op = &self->words->segments[i].ops[k];
            gpu_op_state *state = &self->segments[i].ops[k];
            if (op->kind != GPU_LAUNCH)
                continue;
            state->values = calloc((size_t)op->num_operands + 1, sizeof *state->values);
            state->arguments = calloc((size_t)op->num_operands + 1, sizeof *state->arguments);
            if (!state->values || !state->arguments)
                return refuse_host_memory(why);
            for (int32_t n = 0; n < op->num_operands; n++) {
                state->values[n] = gpu_address(self, op->operands[n]);
                state->arguments[n] = &state->values[n];
            }
        }
    return 0;
}

static int open_all(gpu_lanes *self, char *why) {
    for (int32_t i = 0; i < self->words->num_cards; i++)
        if (open_card(self, i, why) != 0)
            return -1;
    if (load_modules(self, why) != 0 || open_libraries(self, why) != 0)
        return -1; /* before the memory: they are the likelier to be at fault */
    for (int32_t i = 0; i < self->words->num_cards; i++)
        if (take_card_memory(self, i, why) != 0)
            return -1;
    if (take_pinned_memory(self, why) != 0 || make_streams(self, why) != 0)
        return -1;
    return make_arguments(self, why) != 0 ? -1 : plan_calls(self, why);
}

int gpu_lanes_alloc(const gpu_options *options, gpu_lanes **out, char why[GPU_MESSAGE_BYTES]) {
    char reason[GPU_PART_BYTES];
    *out = NULL;
    const gpu_driver *cu = gpu_driver_open(reason, sizeof reason);
    if (!cu) {
        snprintf(why, GPU_MESSAGE_BYTES, "A GPU is needed: %s.", reason);
        return -1;
    }
    gpu_lanes *self = calloc(1, sizeof *self);
    if (!self)
        return refuse_host_memory(why);
    self->cu = cu;
    self->options = *options;
    self->lanes = options->lanes;
    self->words = options->words;
    self->owner = getpid();
    CUcontext before = NULL; /* of the caller's thread, which is not ours */
    int status = make_tables(self, why);
    if (status == 0 && cu->cuCtxGetCurrent(&before) != CUDA_SUCCESS)
        status = refuse(self, CUDA_ERROR_NOT_INITIALIZED,
                        "This process cannot use a GPU, as one that was forked from another", why);
    if (status == 0) {
        status = open_all(self, why);
        (void)cu->cuCtxSetCurrent(before);
    }
    if (status != 0) {
        gpu_lanes_free(self);
        return status;
    }
    *out = self;
    return 0;
}

/* --- closing -----------------------------------------------------------------------------------
 */

static void free_segment(gpu_lanes *self, int32_t index, int is_owner) {
    gpu_segment_state *segment = &self->segments[index];
    for (int32_t k = 0; segment->ops && k < self->words->segments[index].num_ops; k++) {
        gpu_op_state *op = &segment->ops[k];
        if (is_owner && op->begin)
            (void)self->cu->cuEventDestroy_v2(op->begin);
        if (is_owner && op->end)
            (void)self->cu->cuEventDestroy_v2(op->end);
        if (is_owner)
            gpu_product_free(op->plan);
        free(op->arguments);
        free(op->values);
    }
    if (is_owner && segment->exec)
        (void)self->cu->cuGraphExecDestroy(segment->exec);
    if (is_owner && segment->begin)
        (void)self->cu->cuEventDestroy_v2(segment->begin);
    if (is_owner && segment->end)
        (void)self->cu->cuEventDestroy_v2(segment->end);
    free(segment->ops);
    *segment = (gpu_segment_state){0};
}

/* Errors are of no use here: after one of the GPU's, or at the end of the process, every call has
 * one. */
static void close_card(gpu_lanes *self, int32_t index) {
    const gpu_driver *cu = self->cu;
    gpu_card *card = &self->cards[index];
    if (!card->context || cu->cuCtxSetCurrent(card->context) != CUDA_SUCCESS)
        return;
    for (int32_t i = 0; i < self->words->num_streams; i++) {
        if (self->words->stream_cards[i] != index)
            continue;
        if (self->streams[i])
            (void)cu->cuStreamDestroy_v2(self->streams[i]);
        if (self->joins[i])
            (void)cu->cuEventDestroy_v2(self->joins[i]);
    }
    for (int32_t i = 0; i < self->words->num_events; i++)
        if (self->words->event_cards[i] == index && self->events[i])
            (void)cu->cuEventDestroy_v2(self->events[i]);
    for (int32_t i = 0; i < self->words->num_segments; i++)
        if (self->words->segments[i].card == index)
            free_segment(self, i, 1);
    for (int32_t i = 0; i < self->words->num_libraries; i++) {
        void *handle = self->handles[i * self->words->num_cards + index];
        if (handle)
            gpu_library_drop(self->libraries[i], handle);
    }
    for (int32_t i = 0; i < self->words->num_modules; i++)
        if (self->words->module_cards[i] == index && self->modules[i])
            (void)cu->cuModuleUnload(self->modules[i]);
    for (int i = 0; i < 2; i++)
        if (card->memory[i])
            (void)cu->cuMemFree_v2(card->memory[i]);
    if (card->fork)
        (void)cu->cuEventDestroy_v2(card->fork);
    if (card->base)
        (void)cu->cuEventDestroy_v2(card->base);
    if (card->main)
        (void)cu->cuStreamDestroy_v2(card->main);
}

void gpu_lanes_free(gpu_lanes *self) {
    if (!self)
        return;
    int is_owner = self->owner == getpid(); /* a child has none of what its parent opened */
    int has_tables = self->cards && self->streams && self->joins && self->events && self->modules &&
                     self->segments && self->libraries && self->handles;
    if (is_owner && has_tables) {
        CUcontext before = NULL;
        int found = self->cu->cuCtxGetCurrent(&before) == CUDA_SUCCESS;
        for (int32_t i = 0; i < self->words->num_cards; i++)
            close_card(self, i);
        if (self->pinned)
            (void)self->cu->cuMemFreeHost(self->pinned);
        for (int32_t i = 0; i < self->words->num_cards; i++)
            if (self->cards[i].context)
                (void)self->cu->cuDevicePrimaryCtxRelease_v2(self->cards[i].device);
        if (found)
            (void)self->cu->cuCtxSetCurrent(before);
    }
    for (int32_t i = 0; self->segments && i < self->words->num_segments; i++)
        free_segment(self, i, 0);
    for (int32_t i = 0; self->libraries && i < self->words->num_libraries; i++)
        gpu_library_close(self->libraries[i]);
    free(self->libraries);
    free(self->handles);
    free(self->cards);
    free(self->streams);
    free(self->joins);
    free(self->events);
    free(self->modules);
    free(self->functions);
    free(self->segments);
    free(self);
}

/* --- what others ask for -----------------------------------------------------------------------
 */

void *gpu_lanes_pinned(const gpu_lanes *self) { return self->pinned; }

_Atomic uint32_t *gpu_lanes_counter(const gpu_lanes *self, int32_t stream) {
    return (_Atomic uint32_t *)(void *)(self->counters + (size_t)stream * LANES_ALIGN);
}

int gpu_lanes_check(const gpu_lanes *self, char why[GPU_MESSAGE_BYTES]) {
    if (self->owner != getpid())
        snprintf(why, GPU_MESSAGE_BYTES,
                 "A process that was forked cannot use the GPU of the one that it comes from: open "
                 "the program in it.");
    else if (atomic_load(&self->is_lost))
        snprintf(why, GPU_MESSAGE_BYTES,
                 "The program is lost since an error of its GPU: %.400s Open it anew, in another "
                 "process.",
                 self->error);
    else
        return 0;
    return -1;
}
