/* What the fake driver, in the program under test, and the fake GPU, a process of its own, share.
 *
 * Commands go over a socket, so that the GPU takes them in one order: that in which the host's
 * threads issued them. What the host polls (how far a stream is, errors) lies in shared memory. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

/* One window of addresses, the same in both processes: a span per device, then pinned memory. The
 * driver reserves the devices' spans without access; the GPU maps all of it. */
#define WINDOW_BASE 0x200000000000ull
#define SPAN_BYTES (16ull << 30)
enum { MAX_DEVICES = 7, PINNED = MAX_DEVICES, NUM_SPANS = MAX_DEVICES + 1 };
#define WINDOW_BYTES (NUM_SPANS * SPAN_BYTES)

enum { MAX_PARAMS = 128, MAX_STREAMS = 4096, MAX_EVENTS = 1 << 16 };
enum { MAX_REPORTS = 64, REPORT_BYTES = 1024, MAX_MESSAGE = 64 << 20 };

/* File descriptors that the GPU starts with. */
enum { FD_COMMANDS = 3, FD_CALLBACKS = 4, FD_WINDOW = 5, FD_CONTROL = 6 };

typedef enum {
    COMMAND_EMPTY,
    COMMAND_KERNEL,
    COMMAND_COPY,
    COMMAND_SET,
    COMMAND_WRITE, /* a stream memory operation: not a race with who waits for it */
    COMMAND_WAIT,
    COMMAND_HOST, /* a function of the program under test */
} command_kind;

typedef enum { WAIT_GEQ, WAIT_EQ, WAIT_AND, WAIT_NOR } wait_condition;

typedef struct {
    uint32_t kind;
    uint32_t device;
    uint32_t function; /* of a kernel */
    uint32_t grid[3], block[3];
    uint32_t shared_bytes;
    uint32_t value_bytes; /* of SET, WRITE and WAIT */
    uint32_t condition;
    uint64_t to, from, bytes;
    uint64_t value;
    uint64_t function_pointer, user_data; /* of HOST */
    uint32_t param_bytes;                 /* parameters of a kernel follow, each on 16 bytes */
    uint32_t reserved;
} command;

typedef enum {
    MESSAGE_DEVICES,    /* number of them */
    MESSAGE_STREAM,     /* stream, device, whether it waits for the legacy stream */
    MESSAGE_ENQUEUE,    /* stream; command and parameters follow */
    MESSAGE_RECORD,     /* stream, event */
    MESSAGE_WAIT,       /* stream, event */
    MESSAGE_GRAPH,      /* exec, nodes, edges; commands, then pairs of edges follow */
    MESSAGE_LAUNCH,     /* stream, exec */
    MESSAGE_ALLOCATE,   /* address, bytes, bytes of the red zone after them */
    MESSAGE_FREE,       /* address, bytes */
    MESSAGE_REGISTER,   /* host address, alias in pinned memory, bytes */
    MESSAGE_UNREGISTER, /* host address */
    MESSAGE_PEER,       /* device that reads, device that is read */
    MESSAGE_SYNCED,     /* stream that the host has waited for */
    MESSAGE_OBSERVED,   /* event that the host has waited for */
    MESSAGE_HOST_DONE,  /* token of a host function that has returned */
    MESSAGE_LOAD,       /* path follows; a reply comes */
    MESSAGE_FUNCTION,   /* module; name follows; a reply comes */
} message_kind;

typedef struct {
    uint32_t kind;
    uint32_t bytes; /* that follow this header */
    uint64_t argument[3];
} message;

typedef struct {
    int32_t result; /* an id, or -1 */
    uint32_t num_params;
    uint32_t param_bytes[MAX_PARAMS];
    uint32_t static_shared_bytes;
    char text[256];
} reply;

/* What goes to the program for a host function. */
typedef struct {
    uint64_t function, user_data, token;
} callback;

typedef struct {
    _Atomic int32_t error[MAX_DEVICES]; /* sticky, a CUresult */
    _Atomic uint32_t progress;          /* a futex: raised whenever a stream has come further */
    _Atomic uint32_t waiters;
    _Atomic uint64_t launches, graph_launches;
    _Atomic uint32_t num_reports;
    char reports[MAX_REPORTS][REPORT_BYTES];
    _Atomic uint64_t stream_done[MAX_STREAMS]; /* commands of a stream that are done */
    _Atomic int64_t event_ns[MAX_EVENTS];
} control;
