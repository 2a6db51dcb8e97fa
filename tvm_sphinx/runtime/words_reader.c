#include "words_reader.h"

#include <stdlib.h>

#include "lanes_core.h"

typedef struct block {
    struct block *next;
    _Alignas(16) char memory[];
} block;

void *words_memory(words_reader *self, size_t count, size_t size) {
    block *fresh = calloc(1, sizeof *fresh + count * size);
    if (!fresh) {
        self->status = LANES_NO_MEMORY;
        return NULL;
    }
    fresh->next = *self->blocks;
    *self->blocks = fresh;
    return fresh->memory;
}

void words_free(void **blocks) {
    for (block *each = *blocks, *next; each; each = next) {
        next = each->next;
        free(each);
    }
    *blocks = NULL;
}

int64_t words_take(words_reader *self, int64_t least, int64_t below) {
    if (self->status == LANES_OK && self->next < self->end) {
        int64_t word = *self->next++;
        if (least <= word && word < below)
            return word;
    }
    if (self->status == LANES_OK)
        self->status = LANES_BAD_PROGRAM;
    return least;
}

int32_t words_int(words_reader *self, int64_t least, int64_t below) {
    return (int32_t)words_take(self, least, below);
}

int32_t words_count(words_reader *self) {
    int64_t left = self->end - self->next;
    return words_int(self, 0, left < WORDS_MOST ? left + 1 : WORDS_MOST);
}

int32_t *words_list(words_reader *self, int32_t *count, int64_t below) {
    *count = words_count(self);
    int32_t *list = words_memory(self, (size_t)*count, sizeof *list);
    for (int32_t i = 0; list && i < *count; i++)
        list[i] = words_int(self, 0, below);
    return list;
}
