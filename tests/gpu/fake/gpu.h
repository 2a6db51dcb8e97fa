/* The fake GPU's own declarations. One thread runs everything, so that a seed decides what comes
 * first. */
#pragma once
#include "protocol.h"
#include <stdbool.h>
#include <stddef.h>

/* Our own large mappings lie far from where the program under test has memory that it may register.
 */
#define SHADOW_BYTES_AT 0x300000000000ull
#define SHADOW_BLOCKS_AT 0x380000000000ull
#define STACKS_AT 0x400000000000ull

/* A vector clock: for each chain (a stream, or a path of a graph) how much of it lies before. */
typedef struct {
    uint32_t *tick;
    uint32_t size;
} vclock;

void clock_join(vclock *self, const vclock *other);
bool clock_covers(const vclock *self, uint32_t chain, uint32_t tick);
void clock_free(vclock *self);

/* A command that was issued: it runs when all that it waits for are done. */
typedef struct node {
    uint32_t references, missing; /* holders; predecessors that are not done */
    bool done, poisoned;
    uint32_t device, chain;
    uint32_t stream;      /* MAX_STREAMS inside a graph */
    uint32_t exec, place; /* graph and number in it */
    uint64_t position;    /* number in its stream */
    int64_t due_ns;
    struct node **next;
    size_t num_next;
    vclock clock;
    int32_t event; /* whose time is taken when this is done, or -1 */
    command *command;
} node;

typedef struct {
    control *shared;
    uint64_t rng, delay_ns;
    bool checks, keep_going;
    uint32_t num_devices, peers[MAX_DEVICES]; /* bit d of peers[e]: e reads memory of d */
    vclock host;                              /* what the host knows to be done */
    vclock flags;                             /* what wrote flags that the host can see */
} gpu_state;
extern gpu_state gpu;

uint64_t random_below(uint64_t limit);
int64_t now_ns(void);
void *must_allocate(void *old, size_t bytes);

/* gpu.c */
void fail(uint32_t device, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void answer(const reply *result);
void call_host(uint64_t function, uint64_t user_data, uint64_t token);

/* gpu_nodes.c: streams, events, graphs, and what runs next */
void add_stream(uint32_t stream, uint32_t device, bool blocking);
void enqueue(uint32_t stream, const command *given);
void enqueue_record(uint32_t stream, uint32_t event);
void enqueue_wait(uint32_t stream, uint32_t event);
void add_graph(uint32_t exec, uint32_t num_nodes, uint32_t num_edges, const void *body);
void launch_graph(uint32_t stream, uint32_t exec);
void host_knows_stream(uint32_t stream);
void host_knows_event(uint32_t event);
void host_function_done(uint64_t token);
void complete(node *self);
bool run_one(void); /* false: nothing can run now */
bool is_waiting(void);

/* gpu_execute.c */
bool is_runnable(const node *self);
void execute(node *self);

/* gpu_memory.c: what each command reads and writes, and whether it may */
void map_memory(void);
void allocate_memory(uint64_t address, uint64_t bytes, uint64_t red_zone);
void free_memory(uint64_t address, uint64_t bytes);
void register_memory(uint64_t address, uint64_t alias, uint64_t bytes);
void unregister_memory(uint64_t address);
bool is_gpu_address(uint64_t address);
void begin_access(node *self, const char *what);
void end_access(void);
void check_read(uint64_t address, uint64_t bytes);
void check_write(uint64_t address, uint64_t bytes);
void check_copy(uint64_t to, uint64_t from, uint64_t bytes);
void check_flag(uint64_t address, uint64_t bytes, bool writes);

/* gpu_kernels.c */
void load_module(const char *path);
void find_function(uint32_t module, const char *name);
const char *function_name(uint32_t function);
int run_kernel(const command *launch);
int guarded(void (*run)(const command *), const command *given);
/* Both return 0, a CUresult that nobody has reported, or what was given to leave_command. */
void leave_command(int error)
    __attribute__((noreturn)); /* from inside of a command; < 0: is reported */
