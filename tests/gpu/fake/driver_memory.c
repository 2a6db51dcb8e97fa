/* Device memory, pinned and registered host memory, copies. */
#define _GNU_SOURCE
#include "driver.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RED_ZONE = 4096, PAGE = 4096 };

typedef struct {
    uint64_t at, bytes, taken; /* taken: with the red zone */
} block;

/* Blocks of one span by address. Addresses are used again only when the span has been used up, so
 * that use of freed memory is seen. */
typedef struct {
    block *blocks;
    size_t count;
    uint64_t next, used;
} span;

static span spans[NUM_SPANS];

typedef struct {
    uint64_t address, bytes; /* of whole pages */
    uint64_t alias, given;   /* the pinned memory that lies under them; what the caller named */
    uint64_t given_bytes;
} registration;
static registration registered[256];
static size_t num_registered;

static uint64_t base_of(unsigned number) { return WINDOW_BASE + number * SPAN_BYTES; }

/* Return the place of a block of so many bytes, with the lock held; SIZE_MAX: the span is full. */
static size_t find_room(span *self, uint64_t taken, uint64_t *at) {
    for (int round = 0; round < 2; round++) {
        uint64_t candidate = round ? 0 : self->next;
        for (size_t i = 0; i <= self->count; i++) {
            uint64_t end = i < self->count ? self->blocks[i].at : SPAN_BYTES;
            if (candidate + taken <= end) {
                *at = candidate;
                return i;
            }
            if (i < self->count && self->blocks[i].at + self->blocks[i].taken > candidate)
                candidate = self->blocks[i].at + self->blocks[i].taken;
        }
    }
    return SIZE_MAX;
}

static uint64_t take(unsigned number, uint64_t bytes, uint64_t limit) {
    span *self = &spans[number];
    uint64_t taken = (bytes + RED_ZONE + PAGE - 1) / PAGE * PAGE, at = 0;
    if (self->used + bytes > limit || taken > SPAN_BYTES)
        return 0;
    size_t place = find_room(self, taken, &at);
    if (place == SIZE_MAX)
        return 0;
    self->blocks = must_allocate(self->blocks, (self->count + 1) * sizeof *self->blocks);
    memmove(self->blocks + place + 1, self->blocks + place,
            (self->count - place) * sizeof *self->blocks);
    self->blocks[place] = (block){at, bytes, taken};
    self->count++;
    self->used += bytes;
    self->next = at + taken;
    uint64_t address = base_of(number) + at;
    if (number == PINNED) /* before the caller can write to it */
        memset((void *)address, 0xFF, bytes);
    send_message(MESSAGE_ALLOCATE, address, bytes, taken - bytes, NULL, 0, NULL, 0);
    return address;
}

/* Return whether a block began there; with the lock held. */
static bool give_back(unsigned number, uint64_t address) {
    span *self = &spans[number];
    for (size_t i = 0; i < self->count; i++) {
        if (base_of(number) + self->blocks[i].at != address)
            continue;
        self->used -= self->blocks[i].bytes;
        send_message(MESSAGE_FREE, address, self->blocks[i].bytes, 0, NULL, 0, NULL, 0);
        self->count--;
        memmove(self->blocks + i, self->blocks + i + 1, (self->count - i) * sizeof *self->blocks);
        return true;
    }
    return false;
}

static CUresult before_allocation(void) {
    CUresult error = ready();
    return error ? error : forbid_in_capture();
}

API CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    CUresult error = before_allocation();
    if (error)
        return error;
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&driver.lock);
    *address = take((unsigned)current_device, bytes, driver.memory_bytes);
    pthread_mutex_unlock(&driver.lock);
    return *address ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

API CUresult cuMemFree_v2(CUdeviceptr address) {
    CUresult error = before_allocation();
    if (error || !address)
        return error;
    unsigned number = (unsigned)((address - WINDOW_BASE) / SPAN_BYTES);
    if (number >= driver.num_devices)
        return CUDA_ERROR_INVALID_VALUE;
    if ((error = synchronize_device(number))) /* as a real driver does */
        return error;
    pthread_mutex_lock(&driver.lock);
    bool found = give_back(number, address);
    pthread_mutex_unlock(&driver.lock);
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API unsigned long long fake_cuda_pinned_bytes(void); /* what tests ask the fake for */
unsigned long long fake_cuda_pinned_bytes(void) {
    pthread_mutex_lock(&driver.lock);
    uint64_t used = spans[PINNED].used;
    pthread_mutex_unlock(&driver.lock);
    return used;
}

API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    CUresult error = ready();
    if (error)
        return error;
    *total = driver.memory_bytes;
    *free_bytes = driver.memory_bytes - spans[current_device].used;
    return CUDA_SUCCESS;
}

API CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr pointer) {
    uint64_t at;
    CUresult error = ready();
    if (error)
        return error;
    if (attribute != 2 /* CU_POINTER_ATTRIBUTE_MEMORY_TYPE */ || !resolve(pointer, 1, &at))
        return CUDA_ERROR_INVALID_VALUE;
    *(unsigned *)value = (at - WINDOW_BASE) / SPAN_BYTES == PINNED ? 1 : 2; /* host, device */
    return CUDA_SUCCESS;
}

API CUresult cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) {
    (void)flags;
    CUresult error = before_allocation();
    if (error)
        return error;
    pthread_mutex_lock(&driver.lock);
    uint64_t address = bytes ? take(PINNED, bytes, SPAN_BYTES) : 0;
    pthread_mutex_unlock(&driver.lock);
    *memory = (void *)address;
    return address ? CUDA_SUCCESS : bytes ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuMemAllocHost_v2(void **memory, size_t bytes) {
    return cuMemHostAlloc(memory, bytes, 0);
}

API CUresult cuMemFreeHost(void *memory) {
    CUresult error = before_allocation();
    if (error)
        return error;
    for (uint32_t d = 0; d < driver.num_devices; d++)
        if ((error = synchronize_device(d)))
            return error;
    pthread_mutex_lock(&driver.lock);
    bool found = give_back(PINNED, (uint64_t)memory);
    pthread_mutex_unlock(&driver.lock);
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Find memory that the GPU can reach, as it names it. */
bool resolve(uint64_t address, uint64_t bytes, uint64_t *at) {
    *at = address;
    if (address - WINDOW_BASE < WINDOW_BYTES)
        return true;
    for (size_t i = 0; i < num_registered; i++) {
        uint64_t into = address - registered[i].address;
        if (into < registered[i].bytes && bytes <= registered[i].bytes - into) {
            *at = registered[i].alias + into;
            return true;
        }
    }
    return false;
}

API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *memory, unsigned flags) {
    (void)flags;
    uint64_t at;
    CUresult error = ready();
    if (error)
        return error;
    if ((uint64_t)memory - WINDOW_BASE < PINNED * SPAN_BYTES || !resolve((uint64_t)memory, 1, &at))
        return CUDA_ERROR_INVALID_VALUE;
    *address = (uint64_t)memory;
    return CUDA_SUCCESS;
}

/* Put pinned memory under the caller's pages, with what they hold. A thread that writes to a
 * neighbour on the first or last page at this very moment loses that write; a real driver loses
 * none. */
static CUresult register_pages(uint64_t begin, uint64_t bytes, uint64_t given,
                               uint64_t given_bytes) {
    uint64_t alias = take(PINNED, bytes, SPAN_BYTES);
    if (!alias || num_registered == 256)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (ask(MESSAGE_REGISTER, begin, alias, bytes, NULL, 0).result) {
        give_back(PINNED, alias);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    memcpy((void *)alias, (const void *)begin, bytes);
    void *at = mmap((void *)begin, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                    driver.window, (off_t)(alias - WINDOW_BASE));
    if (at == MAP_FAILED)
        return CUDA_ERROR_OPERATING_SYSTEM;
    registered[num_registered++] = (registration){begin, bytes, alias, given, given_bytes};
    return CUDA_SUCCESS;
}

API CUresult cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags) {
    (void)flags;
    CUresult error = before_allocation();
    uint64_t given = (uint64_t)memory, begin = given / PAGE * PAGE;
    uint64_t end = (given + bytes + PAGE - 1) / PAGE * PAGE;
    if (error)
        return error;
    if (!bytes || given - WINDOW_BASE < WINDOW_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&driver.lock);
    for (size_t i = 0; i < num_registered && !error; i++)
        if (begin < registered[i].address + registered[i].bytes && registered[i].address < end)
            error = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    if (!error)
        error = register_pages(begin, end - begin, given, bytes);
    pthread_mutex_unlock(&driver.lock);
    return error;
}

static CUresult unregister_pages(size_t i) {
    registration was = registered[i];
    void *fresh = mmap(NULL, was.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return CUDA_ERROR_OPERATING_SYSTEM;
    memcpy(fresh, (const void *)was.alias, was.bytes);
    if (mremap(fresh, was.bytes, was.bytes, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)was.address) ==
        MAP_FAILED)
        return CUDA_ERROR_OPERATING_SYSTEM;
    ask(MESSAGE_UNREGISTER, was.address, 0, 0, NULL, 0);
    give_back(PINNED, was.alias);
    registered[i] = registered[--num_registered];
    return CUDA_SUCCESS;
}

API CUresult cuMemHostUnregister(void *memory) {
    CUresult error = before_allocation();
    for (uint32_t d = 0; d < driver.num_devices && !error; d++)
        error = synchronize_device(d);
    if (error)
        return error;
    error = CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    pthread_mutex_lock(&driver.lock);
    for (size_t i = 0; i < num_registered; i++)
        if (registered[i].given == (uint64_t)memory) {
            error = unregister_pages(i);
            break;
        }
    pthread_mutex_unlock(&driver.lock);
    return error;
}

/* Pinned memory that copies of pageable memory go through; freed when its copy is done. */
typedef struct {
    uint64_t at, position;
    uint32_t stream;
} staging;
static staging *stagings;
static size_t num_stagings;

static uint64_t stage(CUstream stream, uint64_t bytes) {
    pthread_mutex_lock(&driver.lock);
    for (size_t i = num_stagings; i-- > 0;)
        if (atomic_load(&driver.shared->stream_done[stagings[i].stream]) >= stagings[i].position) {
            give_back(PINNED, stagings[i].at);
            stagings[i] = stagings[--num_stagings];
        }
    uint64_t at = take(PINNED, bytes, SPAN_BYTES);
    stagings = must_allocate(stagings, (num_stagings + 1) * sizeof *stagings);
    if (at) /* until its copy is issued it is not done */
        stagings[num_stagings++] = (staging){at, UINT64_MAX, stream->id};
    pthread_mutex_unlock(&driver.lock);
    return at;
}

static void stage_until(uint64_t at, uint64_t position) {
    pthread_mutex_lock(&driver.lock);
    for (size_t i = 0; i < num_stagings; i++)
        if (stagings[i].at == at)
            stagings[i].position = position;
    pthread_mutex_unlock(&driver.lock);
}

static CUresult copy_pageable(uint64_t to, uint64_t from, size_t bytes, CUstream stream,
                              bool to_host) {
    uint64_t at = stage(stream, bytes);
    if (!at)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!to_host)
        memcpy((void *)at, (const void *)from, bytes);
    command given = {
        .kind = COMMAND_COPY, .to = to_host ? at : to, .from = to_host ? from : at, .bytes = bytes};
    CUresult error = issue(stream, &given, NULL);
    stage_until(at, error ? 0 : stream->issued);
    if (error || !to_host)
        return error;
    if ((error = synchronize(stream)) == CUDA_SUCCESS)
        memcpy((void *)to, (const void *)at, bytes);
    return error;
}

CUresult copy_on(uint64_t to, uint64_t from, size_t bytes, CUstream given) {
    CUstream stream = find_stream(given);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult error = ready_on(stream->device);
    if (error || !bytes)
        return error;
    uint64_t at_to, at_from;
    bool far_to = resolve(to, bytes, &at_to), far_from = resolve(from, bytes, &at_from);
    if (far_to && far_from)
        return issue(stream,
                     &(command){.kind = COMMAND_COPY, .to = at_to, .from = at_from, .bytes = bytes},
                     NULL);
    if (stream->capture) /* memory that may move away cannot be replayed */
        return spoil(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (!far_to && !far_from) {
        if ((error = synchronize(stream)) == CUDA_SUCCESS)
            memmove((void *)to, (const void *)from, bytes);
        return error;
    }
    return copy_pageable(at_to, at_from, bytes, stream, !far_to);
}

API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_on(to, from, bytes, stream);
}
API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    return copy_on(to, (uint64_t)from, bytes, stream);
}
API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_on((uint64_t)to, from, bytes, stream);
}
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return copy_on(to, from, bytes, stream);
}
API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                               CUcontext from_context, size_t bytes, CUstream stream) {
    return to_context && from_context ? copy_on(to, from, bytes, stream)
                                      : CUDA_ERROR_INVALID_CONTEXT;
}

static CUresult copy_now(uint64_t to, uint64_t from, size_t bytes) {
    CUresult error = ready();
    if (!error)
        error = copy_on(to, from, bytes, NULL);
    return error ? error : synchronize(find_stream(NULL));
}

API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return copy_now(to, from, bytes);
}
API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    return copy_now(to, (uint64_t)from, bytes);
}
API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    return copy_now((uint64_t)to, from, bytes);
}
API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return copy_now(to, from, bytes);
}

static CUresult set_on(CUdeviceptr to, uint64_t value, uint32_t value_bytes, size_t count,
                       CUstream given) {
    CUstream stream = find_stream(given);
    uint64_t at;
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!resolve(to, count * value_bytes, &at))
        return CUDA_ERROR_INVALID_VALUE;
    return issue(stream,
                 &(command){.kind = COMMAND_SET,
                            .to = at,
                            .value = value,
                            .value_bytes = value_bytes,
                            .bytes = count * value_bytes},
                 NULL);
}

API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    return set_on(to, value, 1, count, stream);
}
API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    return set_on(to, value, 4, count, stream);
}
API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
    return ready() ? ready() : set_on(to, value, 1, count, NULL);
}
API CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
    return ready() ? ready() : set_on(to, value, 4, count, NULL);
}
