/* Reads the int64 words that Python hands over; trusts none of them. */
#ifndef TVM_SPHINX_WORDS_READER_H_
#define TVM_SPHINX_WORDS_READER_H_

#include <stddef.h>
#include <stdint.h>

/* No count in a program comes near this, so sizes computed from counts cannot overflow. */
enum { WORDS_MOST = 1 << 24 };

typedef struct {
    const int64_t *next, *end;
    void **blocks; /* list of all memory that was taken */
    int status;    /* the first thing that went wrong, see lanes_status */
} words_reader;

/* Zeroed memory that lives until words_free; NULL and a bad status where there is none. */
void *words_memory(words_reader *self, size_t count, size_t size);
void words_free(void **blocks);
/* The next word, if it lies in [least, below); else the least value and a bad status. */
int64_t words_take(words_reader *self, int64_t least, int64_t below);
int32_t words_int(words_reader *self, int64_t least, int64_t below);
/* The next word as the number of items that follow, each of at least one word. */
int32_t words_count(words_reader *self);
/* A count, and as many words in [0, below). */
int32_t *words_list(words_reader *self, int32_t *count, int64_t below);

#endif
