/* The fake libcuda.so.1: starts the fake GPU and talks to it. */
#define _GNU_SOURCE
#include "driver.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
driver_state driver = {.lock = PTHREAD_MUTEX_INITIALIZER};
__thread int current_device = -1;

void *must_allocate(void *old, size_t bytes) {
    void *made = realloc(old, bytes ? bytes : 1);
    if (!made)
        abort();
    return made;
}

void keep(void *object) {
    static void **kept;
    static size_t count;
    pthread_mutex_lock(&driver.lock);
    kept = must_allocate(kept, (count + 1) * sizeof *kept);
    kept[count++] = object;
    pthread_mutex_unlock(&driver.lock);
}

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *given = getenv(name);
    return given && *given ? strtoull(given, NULL, 0) : otherwise;
}

static void write_all(struct iovec *parts, size_t count) {
    struct msghdr head = {.msg_iov = parts, .msg_iovlen = count};
    while (head.msg_iovlen) {
        ssize_t sent = sendmsg(driver.commands, &head, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) { /* the GPU has died: waits find out */
            return;
        }
        for (; sent > 0 && head.msg_iovlen;) {
            size_t part =
                head.msg_iov->iov_len < (size_t)sent ? head.msg_iov->iov_len : (size_t)sent;
            head.msg_iov->iov_base = (char *)head.msg_iov->iov_base + part;
            head.msg_iov->iov_len -= part;
            sent -= (ssize_t)part;
            if (!head.msg_iov->iov_len) {
                head.msg_iov++;
                head.msg_iovlen--;
            }
        }
        while (head.msg_iovlen && !head.msg_iov->iov_len) {
            head.msg_iov++;
            head.msg_iovlen--;
        }
    }
}

void send_message(uint32_t kind, uint64_t a, uint64_t b, uint64_t c, const void *first,
                  size_t first_bytes, const void *second, size_t second_bytes) {
    message head = {kind, (uint32_t)(first_bytes + second_bytes), {a, b, c}};
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)(uintptr_t)first, first_bytes},
                            {(void *)(uintptr_t)second, second_bytes}};
    write_all(parts, 3);
}

/* With the lock held. */
reply ask(uint32_t kind, uint64_t a, uint64_t b, uint64_t c, const void *body, size_t bytes) {
    send_message(kind, a, b, c, body, bytes, NULL, 0);
    reply result = {.result = -1, .text = "the fake GPU has died"};
    size_t got = 0;
    while (got < sizeof result) {
        ssize_t more = recv(driver.commands, (char *)&result + got, sizeof result - got, 0);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            return (reply){.result = -1};
        got += (size_t)more;
    }
    return result;
}

static bool has_died(void) {
    char byte;
    return recv(driver.commands, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Wait until a stream has come to a position. A GPU that does not come on within the time limit is
 * an error, so that a gate that nobody opens fails a test in place of hanging it. */
CUresult wait_until(uint32_t stream, uint64_t position) {
    control *shared = driver.shared;
    struct timespec now, tick = {.tv_nsec = 50000000};
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t end = now.tv_sec * 1000000000ll + now.tv_nsec + (int64_t)driver.timeout_ns;
    while (atomic_load(&shared->stream_done[stream]) < position) {
        uint32_t seen = atomic_load(&shared->progress);
        atomic_fetch_add(&shared->waiters, 1);
        if (atomic_load(&shared->stream_done[stream]) < position)
            syscall(SYS_futex, &shared->progress, FUTEX_WAIT, seen, &tick, NULL, 0);
        atomic_fetch_sub(&shared->waiters, 1);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec * 1000000000ll + now.tv_nsec > end) {
            fprintf(stderr, "fake cuda: stream %u is at command %llu and does not come to %llu\n",
                    stream, (unsigned long long)atomic_load(&shared->stream_done[stream]),
                    (unsigned long long)position);
            return CUDA_ERROR_LAUNCH_TIMEOUT;
        }
        if (has_died()) {
            fprintf(stderr, "fake cuda: the fake GPU has died\n");
            return CUDA_ERROR_UNKNOWN;
        }
    }
    return CUDA_SUCCESS;
}

static void after_fork_in_child(void) { driver.forked = true; }

static int start_process(int commands, int callbacks, int window, int shared) {
    Dl_info here;
    char path[PATH_MAX];
    if (!dladdr((void *)(uintptr_t)start_process, &here))
        return -1;
    const char *slash = strrchr(here.dli_fname, '/');
    int folder = slash ? (int)(slash - here.dli_fname) : 1;
    snprintf(path, sizeof path, "%.*s/fake_gpu", folder, slash ? here.dli_fname : ".");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const int given[] = {commands, callbacks, window, shared};
    for (int i = 0; i < 4; i++)
        posix_spawn_file_actions_adddup2(&actions, given[i], FD_COMMANDS + i);
    char *const arguments[] = {path, NULL};
    pid_t child;
    int error = posix_spawn(&child, path, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error) {
        fprintf(stderr, "fake cuda: cannot start %s: %s\n", path, strerror(error));
        return -1;
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return 0;
}

/* Return a descriptor above those that the GPU starts with. */
static int high(int fd) {
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    close(fd);
    return moved;
}

static CUresult start(void) {
    int commands[2], callbacks[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, commands) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, callbacks))
        return CUDA_ERROR_OPERATING_SYSTEM;
    driver.commands = high(commands[0]);
    driver.callbacks = high(callbacks[0]);
    int far_commands = high(commands[1]), far_callbacks = high(callbacks[1]);
    driver.window = high(memfd_create("fake gpu memory", MFD_CLOEXEC));
    int shared = high(memfd_create("fake gpu control", MFD_CLOEXEC));
    if (ftruncate(driver.window, (off_t)WINDOW_BYTES) || ftruncate(shared, sizeof(control)))
        return CUDA_ERROR_OPERATING_SYSTEM;
    char *window = (char *)WINDOW_BASE;
    uint64_t pinned = PINNED * SPAN_BYTES;
    int fixed = MAP_FIXED_NOREPLACE | MAP_NORESERVE;
    /* A host thread that touches device memory gets the signal that it deserves. */
    if (mmap(window, pinned, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0) == MAP_FAILED ||
        mmap(window + pinned, SPAN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | fixed, driver.window,
             (off_t)pinned) == MAP_FAILED)
        return CUDA_ERROR_OPERATING_SYSTEM;
    driver.shared = mmap(NULL, sizeof(control), PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (driver.shared == MAP_FAILED ||
        start_process(far_commands, far_callbacks, driver.window, shared))
        return CUDA_ERROR_OPERATING_SYSTEM;
    close(far_commands);
    close(far_callbacks);
    close(shared);
    if (ask(MESSAGE_DEVICES, driver.num_devices, 0, 0, NULL, 0).result != 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    for (uint32_t d = 0; d < driver.num_devices; d++) {
        driver.contexts[d].device = (int)d;
        driver.legacy[d] = (struct CUstream_st){.alive = true, .id = d, .device = d};
        send_message(MESSAGE_STREAM, d, d, 0, NULL, 0, NULL, 0);
    }
    driver.num_streams = driver.num_devices;
    pthread_atfork(NULL, NULL, after_fork_in_child);
    return CUDA_SUCCESS;
}

API CUresult cuInit(unsigned flags) {
    (void)flags;
    static CUresult result = CUDA_ERROR_NOT_INITIALIZED;
    if (driver.forked)
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&driver.lock);
    if (result == CUDA_ERROR_NOT_INITIALIZED) {
        driver.num_devices = (uint32_t)setting("FAKE_CUDA_DEVICES", 2);
        driver.memory_bytes = setting("FAKE_CUDA_MEMORY", 4ull << 30);
        driver.timeout_ns = setting("FAKE_CUDA_TIMEOUT_S", 60) * 1000000000ull;
        bool valid = driver.num_devices <= MAX_DEVICES && driver.memory_bytes <= SPAN_BYTES / 2;
        result = !driver.num_devices ? CUDA_ERROR_NO_DEVICE
                 : valid             ? start()
                                     : CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_unlock(&driver.lock);
    return result;
}

CUresult ready_on(uint32_t device) {
    if (driver.forked || !driver.shared) /* a real driver says no more after a fork, either */
        return CUDA_ERROR_NOT_INITIALIZED;
    return atomic_load(&driver.shared->error[device]);
}

CUresult ready(void) {
    if (driver.forked || !driver.shared)
        return CUDA_ERROR_NOT_INITIALIZED;
    return current_device < 0 ? CUDA_ERROR_INVALID_CONTEXT : ready_on((uint32_t)current_device);
}

API CUresult cuDriverGetVersion(int *version) {
    *version = (int)setting("FAKE_CUDA_VERSION", 13000);
    return CUDA_SUCCESS;
}

/* Whether the GPUs are this process's: with FAKE_CUDA_EXCLUSIVE, those of the first that locks that
 * file. */
static int is_ours(void) {
    static int file = -1;
    const char *path = getenv("FAKE_CUDA_EXCLUSIVE");
    if (!path || !*path)
        return 1;
    pthread_mutex_lock(&driver.lock);
    if (file < 0)
        file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    int taken = file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0;
    pthread_mutex_unlock(&driver.lock);
    return taken;
}

static CUresult check_device(CUdevice device) {
    if (driver.forked || !driver.shared)
        return CUDA_ERROR_NOT_INITIALIZED;
    return device < 0 || device >= (int)driver.num_devices ? CUDA_ERROR_INVALID_DEVICE
                                                           : CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int *count) {
    *count = driver.shared && !driver.forked ? (int)driver.num_devices : 0;
    return driver.shared && !driver.forked ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

API CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return check_device(ordinal);
}

API CUresult cuDeviceGetName(char *name, int bytes, CUdevice device) {
    snprintf(name, (size_t)bytes, "Fake GPU");
    return check_device(device);
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    *bytes = driver.memory_bytes;
    return check_device(device);
}

/* An H100's, where it matters. */
API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    static const int values[][2] = {
        {1, 1024},  {2, 1024},      {3, 1024},    {4, 64},  {5, 2147483647}, {6, 65535},
        {7, 65535}, {8, 49152},     {9, 65536},   {10, 32}, {12, 65536},     {13, 1980000},
        {15, 1},    {16, 132},      {18, 0},      {19, 1},  {31, 1},         {36, 2619000},
        {37, 5120}, {38, 52428800}, {39, 2048},   {40, 3},  {41, 1},         {75, 9},
        {76, 0},    {81, 233472},   {82, 65536},  {83, 0},  {89, 0},         {90, 0},
        {91, 1},    {92, 1},        {97, 232448}, {99, 1},  {106, 32},       {115, 0},
    };
    *value = 0;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (values[i][0] == attribute)
            *value = values[i][1];
    return check_device(device);
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    CUresult error = check_device(device);
    if (!error && !is_ours())
        error = CUDA_ERROR_DEVICE_UNAVAILABLE;
    *context = error ? NULL : &driver.contexts[device];
    return error ? error : ready_on((uint32_t)device);
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return check_device(device); }

API CUresult cuCtxSetCurrent(CUcontext context) {
    if (driver.forked || !driver.shared)
        return CUDA_ERROR_NOT_INITIALIZED;
    current_device = context ? context->device : -1;
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = current_device < 0 ? NULL : &driver.contexts[current_device];
    return driver.forked || !driver.shared ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS;
}

static __thread int pushed[16], num_pushed;

API CUresult cuCtxPushCurrent_v2(CUcontext context) {
    if (!context || num_pushed == 16)
        return CUDA_ERROR_INVALID_VALUE;
    pushed[num_pushed++] = current_device;
    return cuCtxSetCurrent(context);
}

API CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    if (!num_pushed)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context)
        cuCtxGetCurrent(context);
    current_device = pushed[--num_pushed];
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetDevice(CUdevice *device) {
    *device = current_device;
    return ready();
}

API CUresult cuCtxSynchronize(void) {
    CUresult error = ready();
    if (!error)
        error = forbid_in_capture();
    return error ? error : synchronize_device((uint32_t)current_device);
}

API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return ready();
}

API CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
    *can = device != peer;
    return check_device(device) ? check_device(device) : check_device(peer);
}

API CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
    static bool enabled[MAX_DEVICES][MAX_DEVICES];
    CUresult error = ready();
    if (error)
        return error;
    if (!peer || flags || peer->device == current_device)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&driver.lock);
    bool before = enabled[current_device][peer->device];
    enabled[current_device][peer->device] = true;
    send_message(MESSAGE_PEER, (uint64_t)current_device, (uint64_t)peer->device, 0, NULL, 0, NULL,
                 0);
    pthread_mutex_unlock(&driver.lock);
    return before ? CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED : CUDA_SUCCESS;
}

API CUresult cuGetErrorName(CUresult error, const char **name) {
    static const struct {
        CUresult error;
        const char *name;
    } names[] = {
#define NAME(E) {E, #E}
        NAME(CUDA_SUCCESS),
        NAME(CUDA_ERROR_INVALID_VALUE),
        NAME(CUDA_ERROR_OUT_OF_MEMORY),
        NAME(CUDA_ERROR_NOT_INITIALIZED),
        NAME(CUDA_ERROR_NO_DEVICE),
        NAME(CUDA_ERROR_INVALID_DEVICE),
        NAME(CUDA_ERROR_DEVICE_UNAVAILABLE),
        NAME(CUDA_ERROR_INVALID_IMAGE),
        NAME(CUDA_ERROR_INVALID_CONTEXT),
        NAME(CUDA_ERROR_NO_BINARY_FOR_GPU),
        NAME(CUDA_ERROR_OPERATING_SYSTEM),
        NAME(CUDA_ERROR_INVALID_HANDLE),
        NAME(CUDA_ERROR_NOT_FOUND),
        NAME(CUDA_ERROR_NOT_READY),
        NAME(CUDA_ERROR_ILLEGAL_ADDRESS),
        NAME(CUDA_ERROR_LAUNCH_TIMEOUT),
        NAME(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED),
        NAME(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED),
        NAME(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED),
        NAME(CUDA_ERROR_LAUNCH_FAILED),
        NAME(CUDA_ERROR_NOT_SUPPORTED),
        NAME(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        NAME(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
        NAME(CUDA_ERROR_STREAM_CAPTURE_MERGE),
        NAME(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED),
        NAME(CUDA_ERROR_STREAM_CAPTURE_UNJOINED),
        NAME(CUDA_ERROR_STREAM_CAPTURE_ISOLATION),
        NAME(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
        NAME(CUDA_ERROR_CAPTURED_EVENT),
        NAME(CUDA_ERROR_UNKNOWN),
#undef NAME
    };
    *name = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error)
            *name = names[i].name;
    return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuGetErrorString(CUresult error, const char **text) {
    bool ours = error == CUDA_ERROR_ILLEGAL_ADDRESS || error == CUDA_ERROR_LAUNCH_FAILED;
    if (ours && driver.shared && atomic_load(&driver.shared->num_reports)) {
        *text = driver.shared->reports[0];
        return CUDA_SUCCESS;
    }
    return cuGetErrorName(error, text);
}

/* What tests ask the fake for. */
API unsigned fake_cuda_num_reports(void);
API const char *fake_cuda_report(unsigned number);
API unsigned long long fake_cuda_launches(void);
API unsigned long long fake_cuda_graph_launches(void);
API unsigned long long fake_cuda_copies(void);
unsigned fake_cuda_num_reports(void) {
    return driver.shared ? atomic_load(&driver.shared->num_reports) : 0;
}
const char *fake_cuda_report(unsigned number) { return driver.shared->reports[number]; }
unsigned long long fake_cuda_launches(void) {
    return driver.shared ? atomic_load(&driver.shared->launches) : 0;
}
unsigned long long fake_cuda_graph_launches(void) {
    return driver.shared ? atomic_load(&driver.shared->graph_launches) : 0;
}
unsigned long long fake_cuda_copies(void) {
    return driver.shared ? atomic_load(&driver.shared->copies) : 0;
}
