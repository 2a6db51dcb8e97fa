/* Binds the lanes to TVM: kernels and packed functions as steps, errors and signals to the caller.
 *
 * The library is loaded with tvm_ffi.load_module and exports one function, `lanes_create`; what it
 * returns is a function too, called with an opcode. Calls through TVM's FFI give up Python's GIL
 * and turn errors into the exceptions that they were.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_lanes.h"
#include "lanes_core.h"
#include "lanes_words.h"
#include "tvm_ffi_abi.h"

/* First argument of the function that `lanes_create` returns; `encode.py` has the same numbers. */
enum opcode {
    OP_RUN = 0,        /* slot tensors... */
    OP_RUN_TRACED = 1, /* stamps int64 (num_steps, 2), slot tensors... */
    OP_TIME = 2,       /* durations int64 (count), slot tensors...: run `count` times */
    OP_SET_DELAYS = 3, /* seed, longest delay in ns */
    OP_SET_SPIN = 4,   /* spin for another lane, spin for the next run, in ns */
    OP_TIME_GPUS = 5,  /* durations int64 (segments of feeders), slot tensors... */
    OP_SLOW_DOWN = 6,  /* worker, how many times as long it takes in permille */
};

/* AffinityMode kSpecifyOneCorePerThread of TVM's thread pool. */
enum { ONE_CORE_PER_THREAD = -2 };

typedef struct {
    lanes_words words;
    lanes *lanes;
    gpu_words gpu_words;
    gpu_lanes *gpu;           /* NULL where no GPU has a part */
    TVMFFIObjectHandle *kept; /* every object of TVM's that this holds a reference to */
    int32_t num_kept;
    TVMFFIObject **views; /* (num_tensors) tensor objects that the steps are called with */
    TVMFFIFunctionCell **functions;
    TVMFFIObject **function_objects;
    TVMFFIObject *configure_pool;
    TVMFFIObject **core_lists;         /* (num_workers) argument of configure_pool */
    TVMFFIAny **arguments;             /* (num_steps) */
    _Atomic(TVMFFIObjectHandle) error; /* first error of the run */
} executor;

typedef struct {
    executor *executor;
    const TVMFFIAny *slots;
    int64_t *stamps, *durations;
    TVMFFIObjectHandle error;
    char why[GPU_MESSAGE_BYTES]; /* a GPU refused it */
} run_request;

static int raise_error(const char *kind, const char *message) {
    TVMFFIErrorSetRaisedFromCStr(kind, message);
    return -1;
}

/* --- hooks of the core -------------------------------------------------------------------------
 */

/* Leaves the thread with a TVM thread pool of its own core alone, so that no pool spins beside us.
 */
static int on_start(void *user, int32_t worker, int32_t core) {
    executor *self = user;
    int32_t first_feeder = self->words.program.num_workers - self->words.program.num_feeders;
    if (worker >= first_feeder)
        return gpu_lanes_enter(self->gpu, worker - first_feeder);
    if (core < 0)
        return 0;
    TVMFFIAny args[3] = {
        {.type_index = kTVMFFIInt, .v_int64 = ONE_CORE_PER_THREAD},
        {.type_index = kTVMFFIInt, .v_int64 = 1},
        {.type_index = kTVMFFIArray, .v_obj = self->core_lists[worker]},
    };
    TVMFFIAny result = {.type_index = kTVMFFINone};
    return tvm_ffi_function_cell(self->configure_pool)
        ->safe_call(self->configure_pool, args, 3, &result);
}

static int run_step(void *user, int32_t index) {
    executor *self = user;
    const lanes_step *step = &self->words.steps[index];
    if (step->kind == LANES_FEED)
        return gpu_lanes_feed(self->gpu, step->function);
    if (step->kind == LANES_CALL) {
        TVMFFIAny result = {.type_index = kTVMFFINone};
        int status = self->functions[step->function]->safe_call(
            self->function_objects[step->function], self->arguments[index], step->num_operands,
            &result);
        if (result.type_index >= 64)
            TVMFFIObjectDecRef(result.v_obj); /* nobody asked for it */
        return status;
    }
    if (step->kind == LANES_COPY) {
        const DLTensor *to = tvm_ffi_dl_tensor(self->views[step->operands[0]]);
        const DLTensor *from = tvm_ffi_dl_tensor(self->views[step->operands[1]]);
        memcpy(to->data, from->data, (size_t)self->words.tensors[step->operands[0]].bytes);
    }
    return 0;
}

static void on_error(void *user, int32_t step) {
    executor *self = user;
    TVMFFIObjectHandle error = NULL, none = NULL;
    const char *text =
        self->gpu && self->words.steps[step].kind == LANES_FEED ? gpu_lanes_error(self->gpu) : NULL;
    if (text)
        TVMFFIErrorSetRaisedFromCStr("GpuError", text);
    TVMFFIErrorMoveFromRaised(&error);
    if (error && !atomic_compare_exchange_strong(&self->error, &none, error))
        TVMFFIObjectDecRef(error);
}

static void skip_step(void *user, int32_t index) {
    executor *self = user;
    const lanes_step *step = &self->words.steps[index];
    if (step->kind == LANES_FEED)
        gpu_lanes_skip(self->gpu, step->function);
}

static _Atomic uint32_t *counter(void *user, int32_t index) {
    return gpu_lanes_counter(((executor *)user)->gpu, index);
}

static int watch(void *user, int32_t worker) {
    executor *self = user;
    return gpu_lanes_watch(self->gpu, worker - self->words.program.num_workers +
                                          self->words.program.num_feeders);
}

static void *host_address(void *user, int32_t tensor) {
    executor *self = user;
    return tvm_ffi_dl_tensor(self->views[tensor])->data;
}

static int poll_signals(void *user) {
    (void)user;
    return TVMFFIEnvCheckSignals();
}

static DLTensor *tensor_of(const TVMFFIAny *value) {
    if (value->type_index == kTVMFFIDLTensorPtr)
        return value->v_ptr;
    if (value->type_index == kTVMFFITensor)
        return tvm_ffi_dl_tensor(value->v_obj);
    return NULL;
}

/* Points the tensors of the slots to this run's inputs and outputs. */
static int prepare(void *argument) {
    run_request *request = argument;
    executor *self = request->executor;
    if (self->gpu &&
        gpu_lanes_begin(self->gpu, request->stamps, request->durations, request->why) != 0)
        return -1;
    for (int32_t i = 0; i < self->words.num_tensors; i++) {
        const lanes_tensor *tensor = &self->words.tensors[i];
        if (tensor->space < self->words.num_spaces)
            continue;
        const DLTensor *slot = tensor_of(&request->slots[tensor->space - self->words.num_spaces]);
        tvm_ffi_dl_tensor(self->views[i])->data =
            (char *)slot->data + slot->byte_offset + tensor->offset;
    }
    return 0;
}

/* Takes the run's error before another run can have one. */
static void finish(void *argument) {
    run_request *request = argument;
    request->error = atomic_exchange(&request->executor->error, NULL);
}

/* --- calls -------------------------------------------------------------------------------------
 */

static int run_once(executor *self, const TVMFFIAny *slots, int64_t *stamps, int64_t *durations) {
    run_request request = {
        .executor = self, .slots = slots, .stamps = stamps, .durations = durations};
    lanes_run_options options = {prepare, finish, &request, stamps};
    if (self->gpu && gpu_lanes_check(self->gpu, request.why) != 0)
        return raise_error("GpuError", request.why);
    int status = lanes_run(self->lanes, &options);
    if (status == LANES_OK)
        return 0;
    if (status == LANES_REFUSED)
        return raise_error("GpuError", request.why);
    if (status == LANES_TASK_FAILED && request.error) {
        TVMFFIErrorSetRaised(request.error);
        TVMFFIObjectDecRef(request.error);
        return -1;
    }
    if (request.error)
        TVMFFIObjectDecRef(request.error);
    /* A signal handler has raised in Python; TVM's FFI knows that by this name. */
    if (status == LANES_STOPPED)
        return raise_error("EnvErrorAlreadySet", "");
    return raise_error("RuntimeError", lanes_strerror(status));
}

static int check_slots(const executor *self, const TVMFFIAny *slots, int32_t count) {
    if (count != self->words.num_slots)
        return raise_error("ValueError", "wrong number of slot tensors");
    for (int32_t i = 0; i < count; i++)
        if (!tensor_of(&slots[i]))
            return raise_error("TypeError", "slots are to be tensors");
    return 0;
}

static int64_t *int64_data(const TVMFFIAny *value, int64_t *count) {
    const DLTensor *tensor = tensor_of(value);
    if (!tensor || tensor->dtype.code != 0 || tensor->dtype.bits != 64 || tensor->dtype.lanes != 1)
        return NULL;
    *count = 1;
    for (int32_t i = 0; i < tensor->ndim; i++)
        *count *= tensor->shape[i];
    return (int64_t *)((char *)tensor->data + tensor->byte_offset);
}

static int run_measured(executor *self, int64_t opcode, const TVMFFIAny *args, int32_t num_args) {
    int64_t count = 0, *into = num_args < 2 ? NULL : int64_data(&args[1], &count);
    if (!into || (opcode == OP_RUN_TRACED && count != 2 * (int64_t)self->words.program.num_steps) ||
        (opcode == OP_TIME_GPUS && count != (int64_t)self->gpu_words.num_segments))
        return raise_error("ValueError", "expected an int64 tensor of the right size");
    int status = check_slots(self, args + 2, num_args - 2);
    if (status != 0)
        return status;
    if (opcode == OP_RUN_TRACED)
        return run_once(self, args + 2, into, NULL);
    if (opcode == OP_TIME_GPUS)
        return run_once(self, args + 2, NULL, into);
    for (int64_t i = 0; i < count && status == 0; i++) {
        int64_t begin = lanes_now_ns();
        status = run_once(self, args + 2, NULL, NULL);
        into[i] = lanes_now_ns() - begin;
    }
    return status;
}

static int slow_down(executor *self, int64_t worker, int64_t permille) {
    if (worker < 0 || worker >= self->words.program.num_workers || permille < 1000 ||
        permille > 1000000)
        return raise_error("ValueError", "expected a worker, and 1000 to 1000000 permille");
    lanes_set_slowdown(self->lanes, (int32_t)worker, permille);
    return 0;
}

static int call_executor(void *handle, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result) {
    executor *self = handle;
    (void)result;
    if (num_args < 1 || args[0].type_index != kTVMFFIInt)
        return raise_error("TypeError", "no opcode");
    switch (args[0].v_int64) {
    case OP_RUN: {
        int status = check_slots(self, args + 1, num_args - 1);
        return status != 0 ? status : run_once(self, args + 1, NULL, NULL);
    }
    case OP_RUN_TRACED:
    case OP_TIME:
    case OP_TIME_GPUS:
        return run_measured(self, args[0].v_int64, args, num_args);
    case OP_SET_DELAYS:
    case OP_SET_SPIN:
    case OP_SLOW_DOWN:
        break;
    default:
        return raise_error("ValueError", "unknown opcode");
    }
    if (num_args != 3 || args[1].type_index != kTVMFFIInt || args[2].type_index != kTVMFFIInt)
        return raise_error("TypeError", "expected two numbers");
    if (args[0].v_int64 == OP_SET_DELAYS)
        lanes_set_delays(self->lanes, (uint64_t)args[1].v_int64, args[2].v_int64);
    else if (args[0].v_int64 == OP_SLOW_DOWN)
        return slow_down(self, args[1].v_int64, args[2].v_int64);
    else
        lanes_set_spin(self->lanes, args[1].v_int64, args[2].v_int64);
    return 0;
}

/* --- making and freeing ------------------------------------------------------------------------
 */

static TVMFFIObject *keep(executor *self, TVMFFIObjectHandle object) {
    self->kept[self->num_kept++] = object;
    return object;
}

static TVMFFIObject *keep_borrowed(executor *self, const TVMFFIAny *value) {
    TVMFFIObjectIncRef(value->v_obj);
    return keep(self, value->v_obj);
}

static void free_executor(void *handle) {
    executor *self = handle;
    lanes_free(self->lanes);
    gpu_lanes_free(self->gpu);
    gpu_words_free(&self->gpu_words);
    for (int32_t i = 0; self->arguments && i < self->words.program.num_steps; i++)
        free(self->arguments[i]);
    for (int32_t i = 0; i < self->num_kept; i++)
        TVMFFIObjectDecRef(self->kept[i]);
    lanes_words_free(&self->words);
    free(self->arguments);
    free(self->core_lists);
    free(self->function_objects);
    free(self->functions);
    free(self->views);
    free(self->kept);
    free(self);
}

static int make_view(executor *self, int32_t index, TVMFFIObject *arena, TVMFFIObject *weights) {
    const lanes_tensor *tensor = &self->words.tensors[index];
    if (tensor->space >= LANES_FIRST_CARD && tensor->space < self->words.num_spaces)
        return 0;
    TVMFFIObject *source = tensor->space == LANES_WEIGHTS ? weights : arena;
    const DLTensor *space = tvm_ffi_dl_tensor(source);
    char *begin = (char *)space->data + space->byte_offset;
    if (tensor->space == LANES_PINNED)
        begin = gpu_lanes_pinned(self->gpu);
    int64_t offset =
        tensor->space < self->words.num_spaces ? tensor->offset : 0; /* a slot is set by each run */
    DLTensor prototype = {
        .data = begin + offset,
        .device = {.device_type = kDLCPU, .device_id = 0},
        .ndim = tensor->ndim,
        .dtype = {.code = tensor->type_code,
                  .bits = tensor->type_bits,
                  .lanes = tensor->type_lanes},
        .shape = tensor->shape,
        .strides = tensor->strides,
    };
    TVMFFIObjectHandle view = NULL;
    if (TVMFFITensorCreateUnsafeView(source, &prototype, &view) != 0)
        return -1;
    self->views[index] = keep(self, view);
    return 0;
}

static int make_arguments(executor *self) {
    for (int32_t i = 0; i < self->words.program.num_steps; i++) {
        const lanes_step *step = &self->words.steps[i];
        self->arguments[i] = calloc((size_t)step->num_operands + 1, sizeof **self->arguments);
        if (!self->arguments[i])
            return raise_error("MemoryError", "out of memory");
        for (int32_t k = 0; k < step->num_operands; k++) {
            if (!self->views[step->operands[k]])
                return raise_error("ValueError", "the host runs a step on a GPU's memory");
            self->arguments[i][k].type_index = kTVMFFITensor;
            self->arguments[i][k].v_obj = self->views[step->operands[k]];
        }
    }
    return 0;
}

static int make_tables(executor *self) {
    size_t num_tensors = (size_t)self->words.num_tensors,
           num_functions = (size_t)self->words.num_functions;
    size_t num_workers = (size_t)self->words.program.num_workers;
    self->kept = calloc(num_tensors + num_functions + num_workers + 4, sizeof *self->kept);
    self->views = calloc(num_tensors + 1, sizeof *self->views);
    self->functions = calloc(num_functions + 1, sizeof *self->functions);
    self->function_objects = calloc(num_functions + 1, sizeof *self->function_objects);
    self->core_lists = calloc(num_workers + 1, sizeof *self->core_lists);
    self->arguments = calloc((size_t)self->words.program.num_steps + 1, sizeof *self->arguments);
    if (self->kept && self->views && self->functions && self->function_objects &&
        self->core_lists && self->arguments)
        return 0;
    return raise_error("MemoryError", "out of memory");
}

/* args: core list of each worker, functions... */
static int fill(executor *self, const TVMFFIAny *args, int32_t num_args) {
    int32_t num_workers = self->words.program.num_workers,
            num_functions = self->words.num_functions;
    if (num_args != num_workers + num_functions)
        return raise_error("TypeError", "wrong number of functions or of core lists");
    for (int32_t i = 0; i < num_workers; i++) {
        if (args[i].type_index != kTVMFFIArray)
            return raise_error("TypeError", "expected core lists");
        self->core_lists[i] = keep_borrowed(self, &args[i]);
    }
    for (int32_t i = 0; i < num_functions; i++) {
        const TVMFFIAny *function = &args[num_workers + i];
        if (function->type_index != kTVMFFIFunction)
            return raise_error("TypeError", "expected functions");
        self->function_objects[i] = keep_borrowed(self, function);
        self->functions[i] = tvm_ffi_function_cell(self->function_objects[i]);
    }
    return 0;
}

static void *tensor_data(const DLTensor *tensor) {
    return (char *)tensor->data + tensor->byte_offset;
}

/* args: words, names, images..., weights of each GPU...; `parts` has room for all of them */
static int open_gpus_with(executor *self, int use_graphs, const TVMFFIAny *args, int32_t num_args,
                          const void **parts) {
    int64_t count = 0;
    const int64_t *words = num_args < 2 ? NULL : int64_data(&args[0], &count);
    int32_t num_cards = (self->words.num_spaces - LANES_FIRST_CARD) / 2,
            num_images = num_args - 2 - num_cards;
    if (!words || num_images < 0)
        return raise_error("TypeError", "expected a GPU's words");
    for (int32_t i = 1; i < num_args; i++)
        if (args[i].type_index != kTVMFFITensor)
            return raise_error("TypeError", "expected a GPU's tensors");
    for (int32_t i = 2; i < num_args; i++)
        parts[i - 2] = tensor_data(tensor_of(&args[i]));
    for (int32_t i = 0; i < num_cards; i++)
        if (tensor_of(&args[2 + num_images + i])->shape[0] <
            self->words.space_bytes[LANES_FIRST_CARD + 2 * i + 1])
            return raise_error("ValueError", "a GPU's weights are too short");
    const DLTensor *names = tensor_of(&args[1]);
    int64_t name_bytes = names->shape[0];
    if (name_bytes < 1 || ((const char *)tensor_data(names))[name_bytes - 1] != 0)
        return raise_error("ValueError", "expected names that end");
    int status = gpu_words_alloc(words, (size_t)count, &self->words, num_images, name_bytes,
                                 &self->gpu_words);
    if (status != LANES_OK)
        return raise_error("ValueError", lanes_strerror(status));
    keep_borrowed(self, &args[1]);
    gpu_options options = {
        .lanes = &self->words,
        .words = &self->gpu_words,
        .names = tensor_data(names),
        .images = parts,
        .weights = parts + num_images,
        .user = self,
        .host_address = host_address,
        .use_graphs = use_graphs,
    };
    char why[GPU_MESSAGE_BYTES];
    status = gpu_lanes_alloc(&options, &self->gpu, why);
    if (status == 0)
        status = gpu_lanes_capture(self->gpu, why);
    return status == 0 ? 0 : raise_error("GpuError", why);
}

static int open_gpus(executor *self, int use_graphs, const TVMFFIAny *args, int32_t num_args) {
    const void **parts = calloc((size_t)num_args + 1, sizeof *parts);
    if (!parts)
        return raise_error("MemoryError", "out of memory");
    int status = open_gpus_with(self, use_graphs, args, num_args, parts);
    free(parts);
    return status;
}

/* args: words, arena, weights, runtime.config_threadpool, number of arguments for the GPUs, whether
 * to use graphs, arguments of `open_gpus`..., arguments of `fill`... */
static int build(executor *self, const TVMFFIAny *args, int32_t num_args) {
    enum { FIXED = 6 };
    int64_t count = 0;
    const int64_t *words = num_args < FIXED ? NULL : int64_data(&args[0], &count);
    if (!words || args[1].type_index != kTVMFFITensor || args[2].type_index != kTVMFFITensor ||
        args[3].type_index != kTVMFFIFunction)
        return raise_error("TypeError", "expected words, arena and weights as tensors");
    if (args[4].type_index != kTVMFFIInt || args[5].type_index != kTVMFFIInt ||
        args[4].v_int64 < 0 || args[4].v_int64 > num_args - FIXED)
        return raise_error("TypeError", "expected two numbers");
    int32_t for_gpus = (int32_t)args[4].v_int64;
    int status = lanes_words_alloc(words, (size_t)count, &self->words);
    if (status != LANES_OK)
        return raise_error("ValueError", lanes_strerror(status));
    for (int32_t i = 0; i < 2; i++)
        if (tensor_of(&args[1 + i])->shape[0] < self->words.space_bytes[i])
            return raise_error("ValueError", "the arena or the weights are too short");
    if (make_tables(self) != 0)
        return -1;
    TVMFFIObject *arena = keep_borrowed(self, &args[1]), *weights = keep_borrowed(self, &args[2]);
    self->configure_pool = keep_borrowed(self, &args[3]);
    if ((for_gpus > 0) != (self->words.num_spaces > LANES_FIRST_CARD))
        return raise_error("TypeError", "a GPU is missing");
    if (for_gpus > 0 && open_gpus(self, args[5].v_int64 != 0, args + FIXED, for_gpus) != 0)
        return -1;
    if (fill(self, args + FIXED + for_gpus, num_args - FIXED - for_gpus) != 0)
        return -1;
    for (int32_t i = 0; i < self->words.num_tensors; i++)
        if (make_view(self, i, arena, weights) != 0)
            return -1;
    if (make_arguments(self) != 0)
        return -1;
    lanes_hooks hooks = {
        .user = self, .on_start = on_start, .run_step = run_step, .on_error = on_error};
    hooks.skip_step = skip_step;
    hooks.counter = counter;
    hooks.watch = watch;
    hooks.poll = poll_signals;
    status = lanes_alloc(&self->words.program, &hooks, &self->lanes);
    return status == LANES_OK ? 0 : raise_error("RuntimeError", lanes_strerror(status));
}

/* Symbols that tvm_ffi.load_module looks for. */
int __tvm_ffi_lanes_create(void *handle, const TVMFFIAny *args, int32_t num_args,
                           TVMFFIAny *result);

int __tvm_ffi_lanes_create(void *handle, const TVMFFIAny *args, int32_t num_args,
                           TVMFFIAny *result) {
    (void)handle;
    executor *self = calloc(1, sizeof *self);
    if (!self)
        return raise_error("MemoryError", "out of memory");
    TVMFFIObjectHandle function = NULL;
    if (build(self, args, num_args) != 0 ||
        TVMFFIFunctionCreate(self, call_executor, free_executor, &function) != 0) {
        free_executor(self);
        return -1;
    }
    result->type_index = kTVMFFIFunction;
    result->v_obj = function;
    return 0;
}
