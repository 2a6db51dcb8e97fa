/* What hand-overs between a host thread and an NVIDIA GPU cost: launches, graphs, events, flags in
 * pinned memory, copies, two streams side by side. Opens the driver at run time, so it builds
 * without CUDA.
 *
 * Usage: probe IMAGE [quick]     IMAGE: probe.cu as machine code
 * Prints one JSON object; times are in ns, each the median with the 10th and 90th percentile. */
#define _GNU_SOURCE
#include "probe_driver.h"
#include <dlfcn.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 2000, NOT_READY = 600, RELAXED = 2, NON_BLOCKING = 1 };

static struct {
    int rounds; /* of a quick measurement; slow ones take a part of it */
    size_t most_bytes;
    CUstream first, second;
    CUevent event, begin, end;
    CUfunction empty, raise, count, read, spin;
    _Atomic uint32_t *flag, *gate; /* pinned */
    CUdeviceptr flag_address, gate_address, word;
    uint32_t value; /* the last that was raised */
    int64_t samples[MOST];
    int is_first;
} probe;

#define OK(call)                                                                                   \
    do {                                                                                           \
        int error_ = (call);                                                                       \
        if (error_) {                                                                              \
            fprintf(stderr, "probe: %s returned %d\n", #call, error_);                             \
            exit(3);                                                                               \
        }                                                                                          \
    } while (0)

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Print the samples under a name, each divided by `per`. */
static void report(const char *name, int n, double per) {
    int64_t *s = probe.samples;
    qsort(s, (size_t)n, sizeof *s, by_value);
    printf("%s\n  \"%s\": {\"median_ns\": %.0f, \"p10_ns\": %.0f, \"p90_ns\": %.0f, \"n\": %d}",
           probe.is_first ? "" : ",", name, (double)s[n / 2] / per, (double)s[n / 10] / per,
           (double)s[n * 9 / 10] / per, n);
    fflush(stdout); /* what was measured stays if the rest fails */
    probe.is_first = 0;
}

static void launch(CUfunction f, CUstream on, void **arguments) {
    OK(cu.cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, on, arguments, NULL));
}
static void launch_empty(CUstream on) { launch(probe.empty, on, (void *[]){&probe.word}); }
static void launch_raise(CUstream on) {
    launch(probe.raise, on, (void *[]){&probe.flag_address, &probe.value});
}
static void write_flag(CUstream on) {
    OK(cu.cuStreamWriteValue32_v2(on, probe.flag_address, ++probe.value, 0));
}

/* Wait for the flag as a lane does. An error on the GPU never raises it. */
static void spin_for_flag(void) {
    int64_t until = 0;
    for (int64_t i = 0; atomic_load_explicit(probe.flag, memory_order_acquire) != probe.value;
         i++) {
        __builtin_ia32_pause();
        if (i % 4096 != 4095)
            continue;
        sched_yield();
        if (!until)
            until = now() + 10000000000ll;
        if (now() > until) {
            fprintf(stderr, "probe: no flag; the stream says %d\n", cu.cuStreamQuery(probe.first));
            exit(4);
        }
    }
}

static void raise_by_host(void *value) { atomic_store(probe.flag, (uint32_t)(uintptr_t)value); }

static void measure_launches(void) {
    int n = probe.rounds / 10;
    int64_t done[MOST] = {0};
    for (int r = 0; r < n; r++) {
        int64_t begin = now();
        for (int i = 0; i < 100; i++)
            launch_empty(probe.first);
        probe.samples[r] = now() - begin;
        OK(cu.cuStreamSynchronize(probe.first));
        done[r] = now() - begin;
    }
    report("launch_on_host", n, 100);
    memcpy(probe.samples, done, sizeof done);
    report("launch_of_100_until_done", n, 100);
}

/* One launch, and five ways for the host to learn that it is done. */
static void measure_ends(void) {
    static const char *const names[] = {"launch_to_flag_of_kernel", "launch_to_write_value",
                                        "launch_to_event_query", "launch_to_synchronize",
                                        "launch_to_host_function"};
    for (int kind = 0; kind < 5; kind++) {
        for (int r = 0; r < probe.rounds; r++) {
            int64_t begin = now();
            if (kind == 0) {
                probe.value++;
                launch_raise(probe.first);
                spin_for_flag();
            } else {
                launch_empty(probe.first);
            }
            if (kind == 1) {
                write_flag(probe.first);
                spin_for_flag();
            } else if (kind == 2) {
                OK(cu.cuEventRecord(probe.event, probe.first));
                while (cu.cuEventQuery(probe.event) == NOT_READY) {
                }
            } else if (kind == 3) {
                OK(cu.cuStreamSynchronize(probe.first));
            } else if (kind == 4) {
                probe.value++;
                OK(cu.cuLaunchHostFunc(probe.first, raise_by_host, (void *)(uintptr_t)probe.value));
                spin_for_flag();
            }
            probe.samples[r] = now() - begin;
        }
        report(names[kind], probe.rounds, 1);
    }
}

/* All is queued, and the host raises a gate that the GPU waits at. */
static void measure_gates(void) {
    for (int kernel = 0; kernel < 2; kernel++) {
        for (int r = 0; r < probe.rounds; r++) {
            OK(cu.cuStreamWaitValue32_v2(probe.first, probe.gate_address, ++probe.value, 0));
            if (kernel)
                launch_raise(probe.first);
            else
                OK(cu.cuStreamWriteValue32_v2(probe.first, probe.flag_address, probe.value, 0));
            for (int64_t until = now() + 20000; now() < until;) {
            }
            int64_t begin = now();
            atomic_store(probe.gate, probe.value);
            spin_for_flag();
            probe.samples[r] = now() - begin;
        }
        report(kernel ? "gate_to_flag_of_kernel" : "gate_to_write_value", probe.rounds, 1);
    }
}

static CUgraphExec make_graph(int length, int branches) {
    CUgraph graph;
    CUgraphExec exec;
    void *arguments[] = {&probe.word};
    OK(cu.cuStreamBeginCapture_v2(probe.first, RELAXED));
    launch(probe.count, probe.first, arguments);
    if (branches > 1) { /* the other branch does as much, elsewhere */
        CUdeviceptr other = probe.word + 256;
        OK(cu.cuEventRecord(probe.event, probe.first));
        OK(cu.cuStreamWaitEvent(probe.second, probe.event, 0));
        for (int i = 0; i < length / 2; i++)
            launch(probe.count, probe.second, (void *[]){&other});
        OK(cu.cuEventRecord(probe.event, probe.second));
        length -= length / 2;
    }
    for (int i = 1; i < length; i++)
        launch(probe.count, probe.first, arguments);
    if (branches > 1)
        OK(cu.cuStreamWaitEvent(probe.first, probe.event, 0));
    launch(probe.count, probe.first, arguments);
    OK(cu.cuStreamEndCapture(probe.first, &graph));
    OK(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cu.cuGraphUpload(exec, probe.first));
    return exec;
}

/* A graph: on the host, until the host knows that it is done, and on the GPU alone. */
static void measure_graph(int length, int branches) {
    CUgraphExec exec = make_graph(length, branches);
    int n = probe.rounds / 5;
    int64_t done[MOST] = {0};
    char label[64];
    for (int i = 0; i < 5; i++)
        OK(cu.cuGraphLaunch(exec, probe.first));
    OK(cu.cuStreamSynchronize(probe.first));
    for (int r = 0; r < n; r++) {
        int64_t begin = now();
        OK(cu.cuGraphLaunch(exec, probe.first));
        probe.samples[r] = now() - begin;
        write_flag(probe.first);
        spin_for_flag();
        done[r] = now() - begin;
    }
    const char *kind = branches > 1 ? "forked_graph" : "graph";
    snprintf(label, sizeof label, "%s_of_%d_on_host", kind, length + 1);
    report(label, n, 1);
    memcpy(probe.samples, done, sizeof done);
    snprintf(label, sizeof label, "%s_of_%d_until_done", kind, length + 1);
    report(label, n, 1);
    for (int r = 0; r < n; r++) {
        float milliseconds;
        OK(cu.cuEventRecord(probe.begin, probe.first));
        OK(cu.cuGraphLaunch(exec, probe.first));
        OK(cu.cuEventRecord(probe.end, probe.first));
        OK(cu.cuEventSynchronize(probe.end));
        OK(cu.cuEventElapsedTime(&milliseconds, probe.begin, probe.end));
        probe.samples[r] = (int64_t)(milliseconds * 1e6f);
    }
    snprintf(label, sizeof label, "%s_of_%d_on_gpu", kind, length + 1);
    report(label, n, 1);
}

static void measure_launches_of(int length) {
    int n = probe.rounds / 5;
    char label[64];
    for (int r = 0; r < n; r++) {
        int64_t begin = now();
        for (int i = 0; i < length; i++)
            launch(probe.count, probe.first, (void *[]){&probe.word});
        write_flag(probe.first);
        spin_for_flag();
        probe.samples[r] = now() - begin;
    }
    snprintf(label, sizeof label, "launches_of_%d_until_done", length);
    report(label, n, 1);
}

static void try_gate_in_capture(void) {
    CUgraph graph = NULL;
    int begun = cu.cuStreamBeginCapture_v2(probe.first, RELAXED);
    int waits = cu.cuStreamWaitValue32_v2(probe.first, probe.gate_address, 0, 0);
    int ended = cu.cuStreamEndCapture(probe.first, &graph);
    printf(",\n  \"gate_in_capture\": [%d, %d, %d]", begun, waits, ended);
}

static void order(CUstream before, CUstream after) {
    OK(cu.cuEventRecord(probe.event, before));
    OK(cu.cuStreamWaitEvent(after, probe.event, 0));
}

static void measure_streams(void) {
    for (int r = 0; r < probe.rounds; r++) {
        int64_t begin = now();
        probe.value++;
        launch_empty(probe.first);
        order(probe.first, probe.second);
        launch_raise(probe.second);
        spin_for_flag();
        probe.samples[r] = now() - begin;
    }
    report("launch_event_other_stream_flag", probe.rounds, 1);
    uint32_t cycles = 40000;
    CUdeviceptr other = probe.word + 256;
    for (int streams = 1; streams <= 2; streams++) {
        for (int r = 0; r < probe.rounds / 10; r++) {
            int64_t begin = now();
            for (int i = 0; i < 4; i++) {
                CUstream on = streams == 1 ? probe.first : probe.second;
                launch(probe.spin, probe.first, (void *[]){&probe.word, &cycles});
                launch(probe.spin, on, (void *[]){&other, &cycles});
            }
            order(probe.second, probe.first);
            write_flag(probe.first);
            spin_for_flag();
            probe.samples[r] = now() - begin;
        }
        report(streams == 1 ? "eight_spins_on_one_stream" : "eight_spins_on_two_streams",
               probe.rounds / 10, 1);
    }
}

typedef struct {
    char *pinned, *other_pinned, *pageable;
    CUdeviceptr memory, other_memory;
} buffers;

enum {
    TO_GPU,
    FROM_GPU,
    PAGEABLE_TO_GPU,
    PAGEABLE_FROM_GPU,
    BY_KERNEL,
    BOTH_WAYS,
    ON_GPU,
    NUM_COPIES
};

static void copy(const buffers *with, int kind, size_t size) {
    CUdeviceptr from = (CUdeviceptr)(uintptr_t)with->pinned, to = with->memory;
    unsigned count = (unsigned)(size / 4);
    if (kind == TO_GPU || kind == BOTH_WAYS)
        OK(cu.cuMemcpyHtoDAsync_v2(with->memory, with->pinned, size, probe.first));
    if (kind == PAGEABLE_TO_GPU)
        OK(cu.cuMemcpyHtoDAsync_v2(with->memory, with->pageable, size, probe.first));
    if (kind == FROM_GPU)
        OK(cu.cuMemcpyDtoHAsync_v2(with->other_pinned, with->other_memory, size, probe.first));
    if (kind == PAGEABLE_FROM_GPU)
        OK(cu.cuMemcpyDtoHAsync_v2(with->pageable, with->other_memory, size, probe.first));
    if (kind == BY_KERNEL)
        OK(cu.cuLaunchKernel(probe.read, 64, 1, 1, 256, 1, 1, 0, probe.first,
                             (void *[]){&to, &from, &count}, NULL));
    if (kind == ON_GPU)
        OK(cu.cuMemcpyDtoDAsync_v2(with->memory, with->other_memory, size, probe.first));
    if (kind == BOTH_WAYS) {
        OK(cu.cuMemcpyDtoHAsync_v2(with->other_pinned, with->other_memory, size, probe.second));
        order(probe.second, probe.first);
    }
}

static void measure_copies(void) {
    static const char *const names[NUM_COPIES] = {
        "pinned_to_gpu",       "gpu_to_pinned",    "pageable_to_gpu", "gpu_to_pageable",
        "kernel_reads_pinned", "pinned_both_ways", "gpu_to_gpu"};
    buffers with;
    size_t most = probe.most_bytes;
    OK(cu.cuMemHostAlloc((void **)&with.pinned, most, 0));
    OK(cu.cuMemHostAlloc((void **)&with.other_pinned, most, 0));
    OK(cu.cuMemAlloc_v2(&with.memory, most));
    OK(cu.cuMemAlloc_v2(&with.other_memory, most));
    with.pageable = malloc(most);
    if (!with.pageable)
        exit(2);
    memset(with.pinned, 1, most);
    memset(with.pageable, 1, most);
    OK(cu.cuMemsetD32Async(with.other_memory, 0, most / 4, probe.first));
    OK(cu.cuStreamSynchronize(probe.first));
    for (size_t size = 1 << 12; size <= most; size <<= 2)
        for (int kind = 0; kind < NUM_COPIES; kind++) {
            int n = size > 1 << 20 ? probe.rounds / 20 : probe.rounds / 5;
            char label[64];
            for (int r = -2; r < n; r++) {
                int64_t begin = now();
                copy(&with, kind, size);
                write_flag(probe.first);
                spin_for_flag();
                if (r >= 0)
                    probe.samples[r] = now() - begin;
            }
            snprintf(label, sizeof label, "%s_%zu", names[kind], size);
            report(label, n, 1);
        }
    free(with.pageable);
}

/* What taking memory costs; not to be done while a model runs. */
static void measure_allocations(void) {
    static const char *const names[] = {"allocate_on_gpu", "allocate_pinned",
                                        "register_host_memory"};
    size_t bytes = probe.most_bytes;
    for (int kind = 0; kind < 3; kind++) {
        int n = 5;
        for (int r = 0; r < n; r++) {
            CUdeviceptr memory;
            void *host = aligned_alloc(4096, bytes);
            if (!host)
                exit(2);
            memset(host, 0, bytes);
            int64_t begin = now();
            void *pinned;
            if (kind == 0)
                OK(cu.cuMemAlloc_v2(&memory, bytes));
            else if (kind == 1)
                OK(cu.cuMemHostAlloc(&pinned, bytes, 0));
            else
                OK(cu.cuMemHostRegister_v2(host, bytes, 0));
            probe.samples[r] = now() - begin;
            if (kind == 0)
                OK(cu.cuMemFree_v2(memory));
            else if (kind == 1)
                OK(cu.cuMemFreeHost(pinned));
            else
                OK(cu.cuMemHostUnregister(host));
            free(host);
        }
        char label[64];
        snprintf(label, sizeof label, "%s_%zu", names[kind], bytes);
        report(label, n, 1);
    }
}

static void open_driver(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "probe: %s\n", dlerror());
        exit(2);
    }
#define LOAD(name, arguments)                                                                      \
    *(void **)&cu.name = dlsym(library, #name);                                                    \
    if (!cu.name) {                                                                                \
        fprintf(stderr, "probe: the driver has no %s\n", #name);                                   \
        exit(2);                                                                                   \
    }
    DRIVER(LOAD)
}

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    char *content = file ? calloc(1, 4 << 20) : NULL;
    if (!content || fread(content, 1, 4 << 20, file) == 0) {
        fprintf(stderr, "probe: cannot read %s\n", path);
        exit(2);
    }
    fclose(file);
    return content;
}

static void start(const char *image) {
    int device, version, major, minor, processors;
    char name[128] = "";
    CUcontext context;
    CUmodule module;
    OK(cu.cuInit(0));
    OK(cu.cuDriverGetVersion(&version));
    OK(cu.cuDeviceGet(&device, 0));
    OK(cu.cuDeviceGetName(name, sizeof name, device));
    OK(cu.cuDeviceGetAttribute(&major, 75, device));
    OK(cu.cuDeviceGetAttribute(&minor, 76, device));
    OK(cu.cuDeviceGetAttribute(&processors, 16, device));
    OK(cu.cuDevicePrimaryCtxRetain(&context, device));
    OK(cu.cuCtxSetCurrent(context));
    OK(cu.cuModuleLoadData(&module, read_file(image)));
    OK(cu.cuModuleGetFunction(&probe.empty, module, "empty_kernel"));
    OK(cu.cuModuleGetFunction(&probe.raise, module, "raise_kernel"));
    OK(cu.cuModuleGetFunction(&probe.count, module, "count_kernel"));
    OK(cu.cuModuleGetFunction(&probe.read, module, "read_kernel"));
    OK(cu.cuModuleGetFunction(&probe.spin, module, "spin_kernel"));
    OK(cu.cuStreamCreate(&probe.first, NON_BLOCKING));
    OK(cu.cuStreamCreate(&probe.second, NON_BLOCKING));
    OK(cu.cuEventCreate(&probe.event, 2));
    OK(cu.cuEventCreate(&probe.begin, 0));
    OK(cu.cuEventCreate(&probe.end, 0));
    void *pinned;
    OK(cu.cuMemHostAlloc(&pinned, 4096, 0));
    memset(pinned, 0, 4096);
    probe.flag = pinned;
    probe.gate = (_Atomic uint32_t *)((char *)pinned + 256); /* another line */
    probe.flag_address = (CUdeviceptr)(uintptr_t)probe.flag;
    probe.gate_address = (CUdeviceptr)(uintptr_t)probe.gate;
    OK(cu.cuMemAlloc_v2(&probe.word, 4096));
    OK(cu.cuMemsetD32Async(probe.word, 0, 1024, probe.first));
    for (int i = 0; i < 50; i++)
        launch_empty(probe.first);
    OK(cu.cuStreamSynchronize(probe.first));
    printf("{\n  \"device\": \"%s\", \"driver\": %d, \"capability\": \"%d.%d\", "
           "\"multiprocessors\": %d",
           name, version, major, minor, processors);
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: probe IMAGE [quick]\n");
        return 2;
    }
    probe.rounds = count > 2 ? 20 : 1000;
    probe.most_bytes = count > 2 ? 1 << 14 : 16 << 20;
    open_driver();
    start(arguments[1]);
    cpu_set_t set; /* of this thread alone: the driver has its own by now */
    CPU_ZERO(&set);
    CPU_SET((unsigned)sched_getcpu(), &set);
    sched_setaffinity(0, sizeof set, &set);
    measure_launches();
    measure_ends();
    measure_gates();
    const int lengths[] = {1, 5, 20, 100, 300};
    for (int i = 0; i < (count > 2 ? 3 : 5); i++) {
        measure_graph(lengths[i], 1);
        measure_launches_of(lengths[i] + 1);
    }
    measure_graph(20, 2);
    measure_graph(100, 2);
    try_gate_in_capture();
    measure_streams();
    measure_copies();
    measure_allocations();
    printf("\n}\n");
    return 0;
}
