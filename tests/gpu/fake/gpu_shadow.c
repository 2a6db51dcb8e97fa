/* The cells of gpu_shadow.h. Copies, which are whole blocks, cost little; kernels, which are not,
 * split them. */
#define _GNU_SOURCE
#include "gpu_shadow.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

cell *shadow_blocks, *shadow_bytes;

static void *map_large(uint64_t address, size_t bytes) {
    void *at = mmap((void *)address, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        perror("fake gpu: shadow memory");
        exit(97);
    }
    return at;
}

void map_shadow(void) {
    shadow_bytes = map_large(SHADOW_BYTES_AT, WINDOW_BYTES * sizeof(cell));
    shadow_blocks = map_large(SHADOW_BLOCKS_AT, WINDOW_BYTES / BLOCK * sizeof(cell));
}

static bool is_same(cell a, cell b) { return a.writer == b.writer && a.readers == b.readers; }

static void fill(uint64_t at, uint64_t end, cell with) {
    for (; at < end; at++)
        shadow_bytes[at] = with;
}

static void update_bytes(uint64_t at, uint64_t end, cell (*next)(uint64_t, cell)) {
    while (at < end) {
        cell now = shadow_bytes[at];
        uint64_t last = at + 1;
        while (last < end && is_same(shadow_bytes[last], now))
            last++;
        cell to = next(at, now);
        if (!is_same(to, now))
            fill(at, last, to);
        at = last;
    }
}

/* Give the bytes of a block one cell again, if they are the same. */
static void join(uint64_t block) {
    cell first = shadow_bytes[block * BLOCK];
    for (uint64_t i = 1; i < BLOCK; i++)
        if (!is_same(shadow_bytes[block * BLOCK + i], first))
            return;
    shadow_blocks[block] = first;
}

void update_shadow(uint64_t at, uint64_t end, cell (*next)(uint64_t, cell)) {
    while (at < end) {
        uint64_t number = at / BLOCK, begin = number * BLOCK;
        uint64_t stop = begin + BLOCK < end ? begin + BLOCK : end;
        cell now = shadow_blocks[number];
        bool is_whole = stop - at == BLOCK;
        if (now.writer == MIXED) {
            update_bytes(at, stop, next);
            if (is_whole)
                join(number);
        } else {
            cell to = next(at, now);
            if (!is_same(to, now) && is_whole) {
                shadow_blocks[number] = to;
            } else if (!is_same(to, now)) {
                fill(begin, begin + BLOCK, now);
                fill(at, stop, to);
                shadow_blocks[number].writer = MIXED;
            }
        }
        at = stop;
    }
}

static cell to_set;
static cell set_next(uint64_t at, cell now) {
    (void)at, (void)now;
    return to_set;
}

void set_shadow(uint64_t at, uint64_t end, uint32_t writer) {
    to_set = (cell){writer, 0};
    update_shadow(at, end, set_next);
}

void clear_shadow(uint64_t at, uint64_t end) {
    set_shadow(at, end, NOWHERE);
    /* Cells of bytes count no more: give their pages back. */
    uint64_t per_page = 4096 / sizeof(cell);
    uint64_t first = (at + per_page - 1) / per_page * per_page, last = end / per_page * per_page;
    if (first < last)
        madvise(shadow_bytes + first, (last - first) * sizeof(cell), MADV_DONTNEED);
}

void copy_unwritten(uint64_t to, uint64_t from, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes;) {
        bool is_block = to % BLOCK == from % BLOCK && (from + i) % BLOCK == 0 && bytes - i >= BLOCK;
        uint64_t count = is_block && shadow_blocks[(from + i) / BLOCK].writer != MIXED ? BLOCK : 1;
        if (shadow_at(from + i).writer == UNWRITTEN)
            set_shadow(to + i, to + i + count, UNWRITTEN);
        i += count;
    }
}
