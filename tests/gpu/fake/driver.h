/* The fake driver's own declarations. */
#pragma once
#include "cuda_abi.h"
#include "protocol.h"
#include <pthread.h>
#include <stdbool.h>

#define API __attribute__((visibility("default")))

struct CUctx_st {
    int device;
};

struct CUmod_st {
    uint32_t id;
};

struct CUfunc_st {
    uint32_t id, num_params, param_bytes[MAX_PARAMS];
    unsigned max_dynamic_shared;
};

typedef struct {
    CUgraphNode *node;
    size_t count;
} node_list;

/* A graph that is being captured. */
typedef struct {
    CUgraph graph;
    CUstream origin;
    pthread_t thread;
    int mode;
    int error; /* what has spoilt it */
    bool ended;
} capture;

struct CUstream_st {
    bool alive;
    uint32_t id, device;
    bool blocking;
    uint64_t issued;
    capture *capture;
    node_list last; /* under capture: what the next node waits for */
};

struct CUevent_st {
    bool alive, recorded;
    uint32_t id;
    unsigned flags;
    uint32_t stream;
    uint64_t position; /* where in the stream it was recorded */
    capture *capture;
    node_list last; /* recorded under capture: what it stands for */
};

struct CUgraphNode_st {
    CUgraph graph;
    uint32_t place;
    command *command;
    node_list before;
};

struct CUgraph_st {
    bool alive;
    node_list nodes;
};

struct CUgraphExec_st {
    bool alive;
    uint32_t id;
};

typedef struct {
    control *shared;
    int commands, callbacks, window;
    bool forked;
    uint32_t num_devices;
    uint64_t memory_bytes;
    uint64_t timeout_ns;
    struct CUctx_st contexts[MAX_DEVICES];
    struct CUstream_st legacy[MAX_DEVICES];
    uint32_t num_streams, num_events, num_execs;
    pthread_mutex_t lock; /* one order for all that the host's threads issue */
} driver_state;
extern driver_state driver;
extern __thread int current_device; /* -1: no context */

/* driver.c */
CUresult ready(void); /* initialised, in this process, with a context, no sticky error */
CUresult ready_on(uint32_t device);
void send_message(uint32_t kind, uint64_t a, uint64_t b, uint64_t c, const void *first,
                  size_t first_bytes, const void *second,
                  size_t second_bytes); /* with the lock held */
reply ask(uint32_t kind, uint64_t a, uint64_t b, uint64_t c, const void *body, size_t bytes);
CUresult wait_until(uint32_t stream, uint64_t position);
void *must_allocate(void *old, size_t bytes);
void keep(
    void *object); /* never freed, so that use of a destroyed handle is an error, not a crash */

/* driver_stream.c */
CUstream find_stream(CUstream given); /* NULL: no such */
CUresult issue(CUstream to, const command *given, const void *params);
CUresult synchronize(CUstream self);
CUresult synchronize_device(uint32_t device);
CUresult make_launch(CUfunction f, const unsigned *grid, const unsigned *block, unsigned shared,
                     void **params, command *made, unsigned char *bytes);
void end_capture_of_streams(const capture *of);

/* driver_memory.c */
bool resolve(uint64_t address, uint64_t bytes, uint64_t *at); /* false: pageable memory */
CUresult copy_on(uint64_t to, uint64_t from, size_t bytes, CUstream stream);

/* driver_graph.c */
CUgraph new_graph(void);
CUgraphNode add_node(CUgraph to, const command *given, const void *params,
                     const CUgraphNode *before, size_t count);
void list_add(node_list *self, CUgraphNode node);
void list_join(node_list *self, const node_list *other);
CUresult spoil(CUstream of, CUresult error);
CUresult forbid_in_capture(void); /* what may not be called while this thread captures */
CUresult capture_command(CUstream to, const command *given, const void *params);
CUresult legacy_in_capture(CUstream to);
extern capture *captures[64];
