/* Who has written each byte of the window last, and who has read it since. */
#pragma once
#include "gpu.h"

/* States of a byte's writer. Larger numbers are accesses. */
enum { NOWHERE = 0, UNWRITTEN = 1, HOST = 2, FIRST_ACCESS = 3 };
#define MIXED 0xFFFFFFFFu

typedef struct {
    uint32_t writer, readers;
} cell;

/* Cells of 64 bytes at once, and of each byte where they differ, which is the block's MIXED. */
enum { BLOCK = 64 };
extern cell *shadow_blocks, *shadow_bytes;

void map_shadow(void);
/* Replace the cells of a range of offsets; equal neighbours are asked about once. */
void update_shadow(uint64_t at, uint64_t end, cell (*next)(uint64_t at, cell now));
void set_shadow(uint64_t at, uint64_t end, uint32_t writer);
void clear_shadow(uint64_t at, uint64_t end);
/* Bytes that nothing has written are so, too, where they were copied to. */
void copy_unwritten(uint64_t to, uint64_t from, uint64_t bytes);

static inline cell shadow_at(uint64_t at) {
    cell block = shadow_blocks[at / BLOCK];
    return block.writer == MIXED ? shadow_bytes[at] : block;
}
