/* Streams, events, launches, stream memory operations, host functions, modules. */
#define _GNU_SOURCE
#include "driver.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The stream of a handle; the legacy stream is the current device's. */
CUstream find_stream(CUstream given) {
    if (!given || given == CU_STREAM_LEGACY || given == CU_STREAM_PER_THREAD)
        return current_device < 0 ? NULL : &driver.legacy[current_device];
    return given->alive ? given : NULL;
}

CUresult issue(CUstream to, const command *given, const void *params) {
    CUresult error = ready_on(to->device);
    if (!error)
        error = legacy_in_capture(to);
    if (error)
        return error;
    command made = *given;
    made.device = to->device;
    pthread_mutex_lock(&driver.lock);
    if (to->capture)
        error = capture_command(to, &made, params);
    else {
        send_message(MESSAGE_ENQUEUE, to->id, 0, 0, &made, sizeof made, params, made.param_bytes);
        to->issued++;
    }
    pthread_mutex_unlock(&driver.lock);
    return error;
}

/* Tell the GPU that the host knows a stream's work to be done. */
static void synced(uint32_t stream) {
    pthread_mutex_lock(&driver.lock);
    send_message(MESSAGE_SYNCED, stream, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&driver.lock);
}

CUresult synchronize(CUstream self) {
    CUresult error = ready_on(self->device);
    if (error)
        return error;
    if (self->capture)
        return spoil(self, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    /* The legacy stream stands for all that block, too. */
    if (self->id < driver.num_devices &&
        (error = issue(self, &(command){.kind = COMMAND_EMPTY}, NULL)))
        return error;
    if ((error = wait_until(self->id, self->issued)))
        return error;
    synced(self->id);
    return ready_on(self->device);
}

static CUstream *streams;
static size_t num_streams;

CUresult synchronize_device(uint32_t device) {
    CUresult error = synchronize(&driver.legacy[device]);
    for (size_t i = 0; !error && i < num_streams; i++)
        if (streams[i]->device == device && !streams[i]->capture)
            error = synchronize(streams[i]);
    return error;
}

/* With the lock held. */
void end_capture_of_streams(const capture *of) {
    for (size_t i = 0; i < num_streams; i++)
        if (streams[i]->capture == of) {
            streams[i]->capture = NULL;
            streams[i]->last.count = 0;
        }
}

API CUresult cuStreamCreateWithPriority(CUstream *made, unsigned flags, int priority) {
    (void)priority;
    CUresult error = ready();
    if (error)
        return error;
    CUstream self = calloc(1, sizeof *self);
    pthread_mutex_lock(&driver.lock);
    if (self && driver.num_streams < MAX_STREAMS) {
        *self = (struct CUstream_st){.alive = true,
                                     .id = driver.num_streams++,
                                     .device = (uint32_t)current_device,
                                     .blocking = !(flags & CU_STREAM_NON_BLOCKING)};
        streams = must_allocate(streams, (num_streams + 1) * sizeof(CUstream));
        streams[num_streams++] = self;
        send_message(MESSAGE_STREAM, self->id, self->device, self->blocking, NULL, 0, NULL, 0);
    } else {
        error = CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_unlock(&driver.lock);
    *made = self;
    return error;
}

API CUresult cuStreamCreate(CUstream *made, unsigned flags) {
    return cuStreamCreateWithPriority(made, flags, 0);
}

API CUresult cuStreamDestroy_v2(CUstream given) {
    if (!given || !given->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    given->alive = false; /* what was issued goes on */
    return driver.forked ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS;
}

API CUresult cuStreamSynchronize(CUstream given) {
    CUstream self = find_stream(given);
    return self ? synchronize(self) : CUDA_ERROR_INVALID_HANDLE;
}

API CUresult cuStreamQuery(CUstream given) {
    CUstream self = find_stream(given);
    if (!self)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = ready_on(self->device);
    if (error)
        return error;
    if (self->capture)
        return spoil(self, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (atomic_load(&driver.shared->stream_done[self->id]) < self->issued)
        return CUDA_ERROR_NOT_READY;
    synced(self->id);
    return CUDA_SUCCESS;
}

API CUresult cuEventCreate(CUevent *made, unsigned flags) {
    CUresult error = ready();
    if (error)
        return error;
    CUevent self = calloc(1, sizeof *self);
    pthread_mutex_lock(&driver.lock);
    uint32_t id = driver.num_events++;
    pthread_mutex_unlock(&driver.lock);
    if (!self || id >= MAX_EVENTS)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *self = (struct CUevent_st){.alive = true, .id = id, .flags = flags};
    keep(self);
    *made = self;
    return CUDA_SUCCESS;
}

API CUresult cuEventDestroy_v2(CUevent self) {
    if (!self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    self->alive = false;
    return driver.forked ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS;
}

API CUresult cuEventRecord(CUevent self, CUstream given) {
    CUstream on = find_stream(given);
    if (!on || !self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = ready_on(on->device);
    if (!error)
        error = legacy_in_capture(on);
    if (error)
        return error;
    pthread_mutex_lock(&driver.lock);
    if (on->capture) {
        self->capture = on->capture;
        self->last.count = 0;
        list_join(&self->last, &on->last);
    } else {
        self->capture = NULL;
        self->recorded = true;
        self->stream = on->id;
        send_message(MESSAGE_RECORD, on->id, self->id, 0, NULL, 0, NULL, 0);
        self->position = ++on->issued;
    }
    pthread_mutex_unlock(&driver.lock);
    return CUDA_SUCCESS;
}

API CUresult cuEventRecordWithFlags(CUevent self, CUstream given, unsigned flags) {
    (void)flags;
    return cuEventRecord(self, given);
}

/* With the lock held. */
static CUresult wait_in_capture(CUstream on, CUevent event) {
    if (!event->capture) /* work outside of the graph */
        return on->capture->error = CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    if (event->capture->ended)
        return CUDA_ERROR_INVALID_VALUE;
    if (on->capture && on->capture != event->capture)
        return on->capture->error = event->capture->error = CUDA_ERROR_STREAM_CAPTURE_MERGE;
    on->capture = event->capture; /* a fork, if it was not there before */
    list_join(&on->last, &event->last);
    return CUDA_SUCCESS;
}

API CUresult cuStreamWaitEvent(CUstream given, CUevent event, unsigned flags) {
    (void)flags;
    CUstream on = find_stream(given);
    if (!on || !event || !event->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = ready_on(on->device);
    if (error)
        return error;
    pthread_mutex_lock(&driver.lock);
    bool stale = event->capture && event->capture->ended && !on->capture;
    if (stale)
        event->capture = NULL;
    if (on->capture || event->capture)
        error = wait_in_capture(on, event);
    else if (event->recorded) {
        send_message(MESSAGE_WAIT, on->id, event->id, 0, NULL, 0, NULL, 0);
        on->issued++;
    }
    pthread_mutex_unlock(&driver.lock);
    return error;
}

static CUresult check_event(CUevent self) {
    if (!self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    if (driver.forked || !driver.shared)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (self->capture)
        return CUDA_ERROR_CAPTURED_EVENT;
    for (uint32_t d = 0; d < driver.num_devices; d++)
        if (ready_on(d))
            return ready_on(d);
    return CUDA_SUCCESS;
}

static CUresult observed(CUevent self) {
    pthread_mutex_lock(&driver.lock);
    send_message(MESSAGE_OBSERVED, self->id, 0, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&driver.lock);
    return CUDA_SUCCESS;
}

API CUresult cuEventQuery(CUevent self) {
    CUresult error = check_event(self);
    if (error || !self->recorded)
        return error;
    if (atomic_load(&driver.shared->stream_done[self->stream]) < self->position)
        return CUDA_ERROR_NOT_READY;
    return observed(self);
}

API CUresult cuEventSynchronize(CUevent self) {
    CUresult error = check_event(self);
    if (error || !self->recorded)
        return error;
    if ((error = wait_until(self->stream, self->position)))
        return error;
    observed(self);
    return check_event(self);
}

API CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent begin, CUevent end) {
    CUresult error = cuEventQuery(begin);
    if (!error)
        error = cuEventQuery(end);
    if (error)
        return error;
    if (!begin->recorded || !end->recorded ||
        ((begin->flags | end->flags) & CU_EVENT_DISABLE_TIMING))
        return CUDA_ERROR_INVALID_HANDLE;
    int64_t ns = atomic_load(&driver.shared->event_ns[end->id]) -
                 atomic_load(&driver.shared->event_ns[begin->id]);
    *milliseconds = (float)((double)ns * 1e-6);
    return CUDA_SUCCESS;
}

API CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end) {
    return cuEventElapsedTime_v2(milliseconds, begin, end);
}

static CUresult value_on(CUstream given, command_kind kind, CUdeviceptr at, uint64_t value,
                         uint32_t bytes, unsigned flags) {
    CUstream on = find_stream(given);
    command made = {.kind = kind, .to = at, .value = value, .value_bytes = bytes};
    if (!on)
        return CUDA_ERROR_INVALID_HANDLE;
    if (at % bytes || !resolve(at, bytes, &made.to))
        return CUDA_ERROR_INVALID_VALUE;
    made.condition = kind == COMMAND_WAIT ? flags & 3 : 0;
    return issue(on, &made, NULL);
}

API CUresult cuStreamWriteValue32_v2(CUstream on, CUdeviceptr at, uint32_t value, unsigned flags) {
    return value_on(on, COMMAND_WRITE, at, value, 4, flags);
}
API CUresult cuStreamWriteValue64_v2(CUstream on, CUdeviceptr at, uint64_t value, unsigned flags) {
    return value_on(on, COMMAND_WRITE, at, value, 8, flags);
}
API CUresult cuStreamWaitValue32_v2(CUstream on, CUdeviceptr at, uint32_t value, unsigned flags) {
    return value_on(on, COMMAND_WAIT, at, value, 4, flags);
}
API CUresult cuStreamWaitValue64_v2(CUstream on, CUdeviceptr at, uint64_t value, unsigned flags) {
    return value_on(on, COMMAND_WAIT, at, value, 8, flags);
}

static void *run_callbacks(void *unused) {
    (void)unused;
    for (callback call;;) {
        ssize_t got = recv(driver.callbacks, &call, sizeof call, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got != sizeof call)
            return NULL;
        ((CUhostFn)call.function)((void *)call.user_data);
        pthread_mutex_lock(&driver.lock);
        send_message(MESSAGE_HOST_DONE, call.token, 0, 0, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&driver.lock);
    }
}

static pthread_once_t callbacks_once = PTHREAD_ONCE_INIT;
static void start_callbacks(void) {
    pthread_t thread;
    if (!pthread_create(&thread, NULL, run_callbacks, NULL))
        pthread_detach(thread);
}

API CUresult cuLaunchHostFunc(CUstream given, CUhostFn function, void *user_data) {
    CUstream on = find_stream(given);
    if (!on)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_once(&callbacks_once, start_callbacks);
    return issue(on,
                 &(command){.kind = COMMAND_HOST,
                            .function_pointer = (uint64_t)function,
                            .user_data = (uint64_t)user_data},
                 NULL);
}

API CUresult cuModuleLoadData(CUmodule *made, const void *image) {
    CUresult error = ready();
    const unsigned char *bytes = image;
    if (error)
        return error;
    if (memcmp(bytes, "\177ELF", 4) || bytes[18] != 62) /* 62: x86-64; a cubin says 190 */
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    uint64_t table;
    uint16_t entry, entries;
    memcpy(&table, bytes + 40, sizeof table);
    memcpy(&entry, bytes + 58, sizeof entry);
    memcpy(&entries, bytes + 60, sizeof entries);
    size_t count = table + (size_t)entry * entries;
    char path[] = "/tmp/fake-kernel-XXXXXX";
    int file = mkstemp(path);
    if (file < 0 || write(file, image, count) != (ssize_t)count)
        return CUDA_ERROR_OPERATING_SYSTEM;
    close(file);
    pthread_mutex_lock(&driver.lock);
    reply result = ask(MESSAGE_LOAD, 0, 0, 0, path, sizeof path);
    pthread_mutex_unlock(&driver.lock);
    unlink(path);
    if (result.result < 0) {
        fprintf(stderr, "fake cuda: %s\n", result.text);
        return CUDA_ERROR_INVALID_IMAGE;
    }
    CUmodule self = calloc(1, sizeof *self);
    if (!self)
        return CUDA_ERROR_OUT_OF_MEMORY;
    self->id = (uint32_t)result.result;
    keep(self);
    *made = self;
    return CUDA_SUCCESS;
}

API CUresult cuModuleUnload(CUmodule self) {
    (void)self; /* the fake GPU keeps it */
    return driver.forked ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS;
}

API CUresult cuModuleGetFunction(CUfunction *made, CUmodule module, const char *name) {
    CUresult error = ready();
    if (error)
        return error;
    pthread_mutex_lock(&driver.lock);
    reply result = ask(MESSAGE_FUNCTION, module->id, 0, 0, name, strlen(name) + 1);
    pthread_mutex_unlock(&driver.lock);
    if (result.result < 0)
        return CUDA_ERROR_NOT_FOUND;
    CUfunction self = calloc(1, sizeof *self);
    if (!self)
        return CUDA_ERROR_OUT_OF_MEMORY;
    self->id = (uint32_t)result.result;
    self->num_params = result.num_params;
    memcpy(self->param_bytes, result.param_bytes, sizeof self->param_bytes);
    keep(self);
    *made = self;
    return CUDA_SUCCESS;
}

API CUresult cuFuncSetAttribute(CUfunction self, int attribute, int value) {
    if (attribute == CU_FUNC_MAX_DYNAMIC_SHARED) {
        if (value < 0 || value > 232448)
            return CUDA_ERROR_INVALID_VALUE;
        self->max_dynamic_shared = (unsigned)value;
    }
    return ready();
}

/* Check a launch and pack its parameters, each on 16 bytes. */
CUresult make_launch(CUfunction f, const unsigned *grid, const unsigned *block, unsigned shared,
                     void **params, command *made, unsigned char *bytes) {
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t threads = (uint64_t)block[0] * block[1] * block[2];
    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7FFFFFFF || grid[1] > 65535 ||
        grid[2] > 65535 || !threads || threads > 1024 || block[2] > 64)
        return CUDA_ERROR_INVALID_VALUE;
    if (shared > 49152 && shared > f->max_dynamic_shared)
        return CUDA_ERROR_INVALID_VALUE;
    *made = (command){.kind = COMMAND_KERNEL, .function = f->id, .shared_bytes = shared};
    memcpy(made->grid, grid, sizeof made->grid);
    memcpy(made->block, block, sizeof made->block);
    for (uint32_t i = 0; i < f->num_params; i++) {
        if (made->param_bytes + f->param_bytes[i] > 4096)
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(bytes + made->param_bytes, params[i], f->param_bytes[i]);
        made->param_bytes += (f->param_bytes[i] + 15) & ~15u;
    }
    return CUDA_SUCCESS;
}

static CUresult launch(CUfunction f, const unsigned *grid, const unsigned *block, unsigned shared,
                       CUstream given, void **params) {
    CUstream on = find_stream(given);
    command made;
    unsigned char bytes[4096 + 16] = {0};
    if (!on)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = make_launch(f, grid, block, shared, params, &made, bytes);
    return error ? error : issue(on, &made, bytes);
}

API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                            unsigned by, unsigned bz, unsigned shared, CUstream on, void **params,
                            void **extra) {
    if (extra)
        return CUDA_ERROR_NOT_SUPPORTED;
    return launch(f, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared, on, params);
}

API CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params,
                              void **extra) {
    if (extra)
        return CUDA_ERROR_NOT_SUPPORTED;
    return launch(f, config->grid, config->block, config->shared_bytes, config->stream, params);
}

API CUresult cuTensorMapEncodeTiled(void) { return CUDA_ERROR_NOT_SUPPORTED; }
