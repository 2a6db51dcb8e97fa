/* Stream capture and graphs. The GPU replays a graph in any order that its edges allow. */
#define _GNU_SOURCE
#include "driver.h"
#include <stdlib.h>
#include <string.h>

capture *captures[64]; /* that go on now */

void list_add(node_list *self, CUgraphNode node) {
    for (size_t i = 0; i < self->count; i++)
        if (self->node[i] == node)
            return;
    self->node = must_allocate(self->node, (self->count + 1) * sizeof *self->node);
    self->node[self->count++] = node;
}

void list_join(node_list *self, const node_list *other) {
    for (size_t i = 0; i < other->count; i++)
        list_add(self, other->node[i]);
}

CUgraph new_graph(void) {
    CUgraph self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->alive = true;
    return self;
}

CUgraphNode add_node(CUgraph to, const command *given, const void *params,
                     const CUgraphNode *before, size_t count) {
    CUgraphNode self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->graph = to;
    self->place = (uint32_t)to->nodes.count;
    self->command = must_allocate(NULL, sizeof *given + given->param_bytes);
    *self->command = *given;
    if (given->param_bytes)
        memcpy(self->command + 1, params, given->param_bytes);
    for (size_t i = 0; i < count; i++)
        list_add(&self->before, before[i]);
    list_add(&to->nodes, self);
    return self;
}

CUresult spoil(CUstream of, CUresult error) {
    of->capture->error = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    return error;
}

/* What may wait for the GPU, such as an allocation, spoils a capture of this thread, or of any in
 * global mode. */
CUresult forbid_in_capture(void) {
    CUresult error = CUDA_SUCCESS;
    for (size_t i = 0; i < 64; i++) {
        capture *of = captures[i];
        if (!of || of->mode == CU_CAPTURE_RELAXED)
            continue;
        if (of->mode == CU_CAPTURE_GLOBAL || pthread_equal(of->thread, pthread_self())) {
            of->error = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
            error = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    return error;
}

/* The legacy stream would wait for a blocking stream that is being captured. */
CUresult legacy_in_capture(CUstream to) {
    if (to->id >= driver.num_devices)
        return CUDA_SUCCESS;
    for (size_t i = 0; i < 64; i++)
        if (captures[i] && captures[i]->origin->blocking &&
            captures[i]->origin->device == to->device)
            return spoil(captures[i]->origin, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    return CUDA_SUCCESS;
}

/* With the lock held. */
CUresult capture_command(CUstream to, const command *given, const void *params) {
    if (to->capture->error)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    CUgraphNode made = add_node(to->capture->graph, given, params, to->last.node, to->last.count);
    to->last.count = 0;
    list_add(&to->last, made);
    return CUDA_SUCCESS;
}

API CUresult cuStreamBeginCapture_v2(CUstream given, int mode) {
    CUstream on = find_stream(given);
    if (!on)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = ready_on(on->device);
    if (error)
        return error;
    if (on->id < driver.num_devices) /* the legacy stream cannot be captured */
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    size_t i = 0;
    pthread_mutex_lock(&driver.lock);
    while (i < 64 && captures[i])
        i++;
    if (on->capture || i == 64)
        error = CUDA_ERROR_INVALID_VALUE;
    else {
        captures[i] = calloc(1, sizeof *captures[i]);
        if (!captures[i])
            abort();
        *captures[i] =
            (capture){.graph = new_graph(), .origin = on, .thread = pthread_self(), .mode = mode};
        on->capture = captures[i];
        on->last.count = 0;
    }
    pthread_mutex_unlock(&driver.lock);
    return error;
}

static void mark_before(CUgraphNode node, bool *is_before) {
    if (is_before[node->place])
        return;
    is_before[node->place] = true;
    for (size_t i = 0; i < node->before.count; i++)
        mark_before(node->before.node[i], is_before);
}

/* Whether all that was captured lies before where the origin is: all forks have joined it. */
static bool is_joined(const capture *of) {
    size_t count = of->graph->nodes.count;
    bool *is_before = calloc(count + 1, sizeof *is_before), joined = true;
    if (!is_before)
        abort();
    for (size_t i = 0; i < of->origin->last.count; i++)
        mark_before(of->origin->last.node[i], is_before);
    for (size_t i = 0; i < count; i++)
        joined = joined && is_before[i];
    free(is_before);
    return joined;
}

API CUresult cuStreamEndCapture(CUstream given, CUgraph *made) {
    CUstream on = find_stream(given);
    *made = NULL;
    if (!on)
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&driver.lock);
    capture *of = on->capture;
    CUresult error = CUDA_SUCCESS;
    if (!of || of->origin != on)
        error = of ? CUDA_ERROR_STREAM_CAPTURE_UNMATCHED : CUDA_ERROR_INVALID_VALUE;
    else {
        error = of->error       ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                : is_joined(of) ? CUDA_SUCCESS
                                : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
        of->ended = true;
        end_capture_of_streams(of);
        for (size_t i = 0; i < 64; i++)
            if (captures[i] == of)
                captures[i] = NULL;
        if (!error)
            *made = of->graph;
    }
    pthread_mutex_unlock(&driver.lock);
    if (of)
        keep(of); /* events may still name it */
    return error ? error : ready_on(on->device);
}

API CUresult cuStreamIsCapturing(CUstream given, int *status) {
    CUstream on = find_stream(given);
    if (!on)
        return CUDA_ERROR_INVALID_HANDLE;
    *status = !on->capture ? 0 : on->capture->error ? 2 : 1;
    return ready_on(on->device);
}

API CUresult cuThreadExchangeStreamCaptureMode(int *mode) {
    static __thread int current = CU_CAPTURE_GLOBAL;
    int old = current;
    current = *mode;
    *mode = old;
    return CUDA_SUCCESS;
}

API CUresult cuGraphCreate(CUgraph *made, unsigned flags) {
    CUresult error = ready();
    if (!error && flags)
        error = CUDA_ERROR_INVALID_VALUE;
    if (!error)
        *made = new_graph();
    return error;
}

static CUresult add(CUgraphNode *made, CUgraph to, const CUgraphNode *before, size_t count,
                    command *given, const void *params) {
    if (!to || !to->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    given->device = (uint32_t)current_device;
    for (size_t i = 0; i < count; i++)
        if (!before[i] || before[i]->graph != to)
            return CUDA_ERROR_INVALID_VALUE;
    *made = add_node(to, given, params, before, count);
    return CUDA_SUCCESS;
}

API CUresult cuGraphAddKernelNode_v2(CUgraphNode *made, CUgraph to, const CUgraphNode *before,
                                     size_t count, const CUkernelNodeParams *given) {
    command launch;
    unsigned char bytes[4096 + 16] = {0};
    CUresult error = ready();
    if (!error)
        error = make_launch(given->function, given->grid, given->block, given->shared_bytes,
                            given->params, &launch, bytes);
    return error ? error : add(made, to, before, count, &launch, bytes);
}

static uint64_t end_of(const CUmemcpyEnd *self) {
    uint64_t at = self->memory_type == CU_MEMORYTYPE_HOST ? (uint64_t)self->host : self->device;
    return at + self->x;
}

API CUresult cuGraphAddMemcpyNode(CUgraphNode *made, CUgraph to, const CUgraphNode *before,
                                  size_t count, const CUmemcpy3D *given, CUcontext context) {
    (void)context;
    command copy = {.kind = COMMAND_COPY, .bytes = given->width_bytes};
    CUresult error = ready();
    if (error)
        return error;
    if (given->height > 1 || given->depth > 1)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!resolve(end_of(&given->to), copy.bytes, &copy.to) ||
        !resolve(end_of(&given->from), copy.bytes, &copy.from))
        return CUDA_ERROR_INVALID_VALUE; /* pageable memory */
    return add(made, to, before, count, &copy, NULL);
}

API CUresult cuGraphAddMemsetNode(CUgraphNode *made, CUgraph to, const CUgraphNode *before,
                                  size_t count, const CUmemsetNodeParams *given,
                                  CUcontext context) {
    (void)context;
    command set = {.kind = COMMAND_SET,
                   .value = given->value,
                   .value_bytes = given->element_bytes,
                   .bytes = given->width * given->element_bytes};
    CUresult error = ready();
    if (error)
        return error;
    if (given->height > 1)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!resolve(given->to, set.bytes, &set.to))
        return CUDA_ERROR_INVALID_VALUE;
    return add(made, to, before, count, &set, NULL);
}

API CUresult cuGraphAddEmptyNode(CUgraphNode *made, CUgraph to, const CUgraphNode *before,
                                 size_t count) {
    CUresult error = ready();
    return error ? error : add(made, to, before, count, &(command){.kind = COMMAND_EMPTY}, NULL);
}

API CUresult cuGraphAddDependencies(CUgraph to, const CUgraphNode *from, const CUgraphNode *then,
                                    size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!from[i] || !then[i] || from[i]->graph != to || then[i]->graph != to ||
            from[i] == then[i])
            return CUDA_ERROR_INVALID_VALUE;
        list_add(&then[i]->before, from[i]);
    }
    return ready();
}

API CUresult cuGraphAddDependencies_v2(CUgraph to, const CUgraphNode *from, const CUgraphNode *then,
                                       const CUgraphEdgeData *data, size_t count) {
    return data ? CUDA_ERROR_NOT_SUPPORTED : cuGraphAddDependencies(to, from, then, count);
}

API CUresult cuGraphGetNodes(CUgraph self, CUgraphNode *nodes, size_t *count) {
    if (!self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    for (size_t i = 0; nodes && i < *count && i < self->nodes.count; i++)
        nodes[i] = self->nodes.node[i];
    if (!nodes || *count > self->nodes.count)
        *count = self->nodes.count;
    return ready();
}

API CUresult cuGraphGetEdges_v2(CUgraph self, CUgraphNode *from, CUgraphNode *to,
                                CUgraphEdgeData *data, size_t *count) {
    if (!self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    size_t found = 0;
    for (size_t i = 0; i < self->nodes.count; i++)
        for (size_t k = 0; k < self->nodes.node[i]->before.count; k++, found++) {
            if (!from || found >= *count)
                continue;
            from[found] = self->nodes.node[i]->before.node[k];
            to[found] = self->nodes.node[i];
            if (data)
                data[found] = (CUgraphEdgeData){0};
        }
    if (!from || *count > found)
        *count = found;
    return ready();
}

API CUresult cuGraphDestroy(CUgraph self) {
    if (!self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    self->alive = false;
    for (size_t i = 0; i < self->nodes.count; i++) {
        CUgraphNode node = self->nodes.node[i];
        free(node->command);
        free(node->before.node);
        free(node);
    }
    free(self->nodes.node);
    self->nodes = (node_list){0};
    keep(self);
    return CUDA_SUCCESS;
}

/* Whether no node waits for itself. */
static bool is_acyclic(CUgraph self, uint32_t (*edges)[2], size_t num_edges) {
    size_t n = self->nodes.count, done = 0, before = SIZE_MAX;
    bool *is_done = calloc(n + 1, sizeof *is_done);
    if (!is_done)
        abort();
    while (done != before) {
        before = done;
        for (size_t i = 0; i < n; i++) {
            bool can = !is_done[i];
            for (size_t e = 0; can && e < num_edges; e++)
                can = edges[e][1] != i || is_done[edges[e][0]];
            if (can) {
                is_done[i] = true;
                done++;
            }
        }
    }
    free(is_done);
    return done == n;
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph self,
                                         unsigned long long flags) {
    (void)flags;
    CUresult error = ready();
    if (error)
        return error;
    if (!self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    size_t bytes = 0, num_edges = 0, e = 0;
    for (size_t i = 0; i < self->nodes.count; i++) {
        bytes += sizeof(command) + self->nodes.node[i]->command->param_bytes;
        num_edges += self->nodes.node[i]->before.count;
    }
    char *body = must_allocate(NULL, bytes), *at = body;
    uint32_t (*edges)[2] = must_allocate(NULL, (num_edges + 1) * sizeof *edges);
    for (size_t i = 0; i < self->nodes.count; i++) {
        CUgraphNode node = self->nodes.node[i];
        size_t count = sizeof(command) + node->command->param_bytes;
        memcpy(at, node->command, count);
        at += count;
        for (size_t k = 0; k < node->before.count; k++, e++) {
            edges[e][0] = node->before.node[k]->place;
            edges[e][1] = node->place;
        }
    }
    if (is_acyclic(self, edges, num_edges)) {
        CUgraphExec exec = must_allocate(NULL, sizeof *exec);
        pthread_mutex_lock(&driver.lock);
        *exec = (struct CUgraphExec_st){true, driver.num_execs++};
        send_message(MESSAGE_GRAPH, exec->id, self->nodes.count, num_edges, body, bytes, edges,
                     num_edges * sizeof *edges);
        pthread_mutex_unlock(&driver.lock);
        keep(exec);
        *made = exec;
    } else {
        error = CUDA_ERROR_INVALID_VALUE;
    }
    free(body);
    free(edges);
    return error;
}

API CUresult cuGraphLaunch(CUgraphExec self, CUstream given) {
    CUstream on = find_stream(given);
    if (!on || !self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = ready_on(on->device);
    if (!error)
        error = legacy_in_capture(on);
    if (!error && on->capture) /* a child graph: not in the fake */
        error = spoil(on, CUDA_ERROR_NOT_SUPPORTED);
    if (error)
        return error;
    pthread_mutex_lock(&driver.lock);
    send_message(MESSAGE_LAUNCH, on->id, self->id, 0, NULL, 0, NULL, 0);
    on->issued += 2; /* its begin and its end */
    pthread_mutex_unlock(&driver.lock);
    return CUDA_SUCCESS;
}

API CUresult cuGraphUpload(CUgraphExec self, CUstream given) {
    CUstream on = find_stream(given);
    return on && self && self->alive ? ready_on(on->device) : CUDA_ERROR_INVALID_HANDLE;
}

API CUresult cuGraphExecDestroy(CUgraphExec self) {
    if (!self || !self->alive)
        return CUDA_ERROR_INVALID_HANDLE;
    self->alive = false;
    return CUDA_SUCCESS;
}
