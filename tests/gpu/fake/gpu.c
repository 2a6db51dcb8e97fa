/* The fake GPU: takes commands from the fake driver and runs them in any order that their edges
 * allow. */
#define _GNU_SOURCE
#include "gpu.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

gpu_state gpu;

void *must_allocate(void *old, size_t bytes) {
    void *made = realloc(old, bytes ? bytes : 1);
    if (!made) {
        fputs("fake gpu: out of the host's memory\n", stderr);
        exit(97);
    }
    return made;
}

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* splitmix64, Steele, Lea and Flood 2014 */
uint64_t random_below(uint64_t limit) {
    uint64_t z = (gpu.rng += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return (z ^ (z >> 31)) % limit;
}

void fail(uint32_t device, int error, const char *format, ...) {
    char text[REPORT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    bool first = !atomic_load(&gpu.shared->error[device]);
    uint32_t number = atomic_load(&gpu.shared->num_reports);
    if (first && number < MAX_REPORTS) {
        memcpy(gpu.shared->reports[number], text, sizeof text);
        atomic_store(&gpu.shared->num_reports, number + 1);
        fprintf(stderr, "fake gpu: device %u: %s\n", device, text);
    }
    if (!gpu.keep_going)
        atomic_store(&gpu.shared->error[device],
                     first ? error : atomic_load(&gpu.shared->error[device]));
}

static void send_all(int to, const void *bytes, size_t count) {
    const char *at = bytes;
    while (count) {
        ssize_t sent = send(to, at, count, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            exit(0); /* the program has ended */
        at += sent;
        count -= (size_t)sent;
    }
}

void answer(const reply *result) { send_all(FD_COMMANDS, result, sizeof *result); }

void call_host(uint64_t function, uint64_t user_data, uint64_t token) {
    callback call = {function, user_data, token};
    send_all(FD_CALLBACKS, &call, sizeof call);
}

static void dispatch(const message *got, const void *body) {
    const uint64_t *argument = got->argument;
    uint32_t first = (uint32_t)argument[0], second = (uint32_t)argument[1];
    switch ((message_kind)got->kind) {
    case MESSAGE_DEVICES:
        gpu.num_devices = first;
        answer(&(reply){0});
        break;
    case MESSAGE_STREAM:
        add_stream(first, second, argument[2] != 0);
        break;
    case MESSAGE_ENQUEUE:
        enqueue(first, body);
        break;
    case MESSAGE_RECORD:
        enqueue_record(first, second);
        break;
    case MESSAGE_WAIT:
        enqueue_wait(first, second);
        break;
    case MESSAGE_GRAPH:
        add_graph(first, second, (uint32_t)argument[2], body);
        break;
    case MESSAGE_LAUNCH:
        launch_graph(first, second);
        break;
    case MESSAGE_ALLOCATE:
        allocate_memory(argument[0], argument[1], argument[2]);
        break;
    case MESSAGE_FREE:
        free_memory(argument[0], argument[1]);
        break;
    case MESSAGE_REGISTER:
        register_memory(argument[0], argument[1], argument[2]);
        break;
    case MESSAGE_UNREGISTER:
        unregister_memory(argument[0]);
        answer(&(reply){0});
        break;
    case MESSAGE_PEER:
        gpu.peers[first] |= 1u << second;
        break;
    case MESSAGE_SYNCED:
        host_knows_stream(first);
        break;
    case MESSAGE_OBSERVED:
        host_knows_event(first);
        break;
    case MESSAGE_HOST_DONE:
        host_function_done(argument[0]);
        break;
    case MESSAGE_LOAD:
        load_module(body);
        break;
    case MESSAGE_FUNCTION:
        find_function(first, body);
        break;
    }
}

/* Take what has come; wait for it up to so many microseconds, forever if negative. */
static void receive(int wait_us) {
    static char *buffer;
    static size_t filled, room;
    struct pollfd from = {.fd = FD_COMMANDS, .events = POLLIN};
    struct timespec wait = {.tv_nsec = wait_us * 1000l};
    if (wait_us && ppoll(&from, 1, wait_us < 0 ? NULL : &wait, NULL) <= 0)
        return;
    if (room - filled < 65536)
        buffer = must_allocate(buffer, room = 2 * room + 131072);
    ssize_t got = recv(FD_COMMANDS, buffer + filled, room - filled, MSG_DONTWAIT);
    if (got == 0)
        exit(0); /* the program has ended */
    if (got < 0)
        return;
    filled += (size_t)got;
    size_t at = 0;
    message head;
    while (filled - at >= sizeof head) {
        memcpy(&head, buffer + at, sizeof head);
        if (filled - at - sizeof head < head.bytes)
            break;
        dispatch(&head, buffer + at + sizeof head);
        at += sizeof head + head.bytes;
    }
    memmove(buffer, buffer + at, filled -= at);
}

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *given = getenv(name);
    return given && *given ? strtoull(given, NULL, 0) : otherwise;
}

int main(void) {
    if (fork()) /* so that the program under test has no child that it does not know of */
        return 0;
    setsid();
    gpu.rng = setting("FAKE_CUDA_SEED", 1);
    gpu.delay_ns = setting("FAKE_CUDA_DELAY_NS", 100000);
    gpu.checks = setting("FAKE_CUDA_CHECKS", 1) != 0;
    gpu.keep_going = setting("FAKE_CUDA_KEEP_GOING", 0) != 0;
    gpu.shared = mmap(NULL, sizeof *gpu.shared, PROT_READ | PROT_WRITE, MAP_SHARED, FD_CONTROL, 0);
    if (gpu.shared == MAP_FAILED)
        return 97;
    map_memory();
    for (;;) {
        receive(0);
        if (!run_one())
            receive(is_waiting() ? 50 : -1);
    }
}
