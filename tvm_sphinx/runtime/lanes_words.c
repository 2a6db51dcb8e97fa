#include "lanes_words.h"

#include <stdlib.h>
#include <string.h>

/* No count in a program comes near this, so sizes computed from counts cannot overflow. */
enum { MOST = 1 << 24 };

typedef struct block {
  struct block *next;
  _Alignas(16) char memory[];
} block;

typedef struct {
  const int64_t *next, *end;
  lanes_words *out;
  int64_t arena_bytes, weight_bytes;
  int status; /* the first thing that went wrong */
} reader;

static void *take_memory(reader *self, size_t count, size_t size) {
  block *fresh = calloc(1, sizeof *fresh + count * size);
  if (!fresh) {
    self->status = LANES_NO_MEMORY;
    return NULL;
  }
  fresh->next = self->out->blocks;
  self->out->blocks = fresh;
  return fresh->memory;
}

/* The next word, if it lies in [least, below); else the least value and a bad status. */
static int64_t take(reader *self, int64_t least, int64_t below) {
  if (self->status == LANES_OK && self->next < self->end) {
    int64_t word = *self->next++;
    if (least <= word && word < below) return word;
  }
  if (self->status == LANES_OK) self->status = LANES_BAD_PROGRAM;
  return least;
}

static int32_t take_int(reader *self, int64_t least, int64_t below) {
  return (int32_t)take(self, least, below);
}

/* The next word as the number of items that follow, each of at least one word. */
static int32_t take_count(reader *self) {
  int64_t left = self->end - self->next;
  return take_int(self, 0, left < MOST ? left + 1 : MOST);
}

static int32_t *take_list(reader *self, int32_t *count, int64_t below) {
  *count = take_count(self);
  int32_t *list = take_memory(self, (size_t)*count, sizeof *list);
  for (int32_t i = 0; list && i < *count; i++) list[i] = take_int(self, 0, below);
  return list;
}

static void read_tensor(reader *self, lanes_tensor *tensor) {
  tensor->space = take_int(self, 0, LANES_FIRST_SLOT + (int64_t)self->out->num_slots);
  tensor->offset = take(self, 0, INT64_MAX);
  tensor->type_code = (uint8_t)take(self, 0, UINT8_MAX + 1);
  tensor->type_bits = (uint8_t)take(self, 1, UINT8_MAX + 1);
  tensor->type_lanes = (uint16_t)take(self, 1, UINT16_MAX + 1);
  tensor->ndim = take_int(self, 0, 64);
  tensor->shape = take_memory(self, 2 * (size_t)tensor->ndim, sizeof *tensor->shape);
  if (!tensor->shape) return;
  tensor->strides = tensor->shape + tensor->ndim;
  int64_t elements = 1;
  for (int32_t i = 0; i < tensor->ndim; i++) {
    tensor->shape[i] = take(self, 0, INT64_MAX);
    if (tensor->shape[i] && elements > INT64_MAX / 65536 / tensor->shape[i])
      self->status = LANES_BAD_PROGRAM;
    else
      elements *= tensor->shape[i];
  }
  for (int64_t i = tensor->ndim - 1, stride = 1; i >= 0; stride *= tensor->shape[i--])
    tensor->strides[i] = stride;
  if (self->status != LANES_OK) return;
  tensor->bytes = elements * ((tensor->type_bits * tensor->type_lanes + 7) / 8);
  int64_t capacity = tensor->space == LANES_ARENA ? self->arena_bytes : self->weight_bytes;
  if (tensor->space < LANES_FIRST_SLOT && tensor->offset > capacity - tensor->bytes)
    self->status = LANES_BAD_PROGRAM;
}

static void read_step(reader *self, lanes_step *step) {
  lanes_words *out = self->out;
  step->kind = take_int(self, LANES_NOTHING, LANES_COPY + 1);
  step->function = step->kind == LANES_CALL ? take_int(self, 0, out->num_functions) : 0;
  step->operands = take_list(self, &step->num_operands, out->num_tensors);
  if (self->status != LANES_OK || step->kind != LANES_COPY) return;
  if (step->num_operands != 2 ||
      out->tensors[step->operands[0]].bytes != out->tensors[step->operands[1]].bytes)
    self->status = LANES_BAD_PROGRAM;
}

static void read_entry(reader *self, lanes_entry *entry) {
  lanes_program *program = &self->out->program;
  entry->step = take_int(self, 0, program->num_steps);
  entry->team = take_int(self, -1, program->num_teams);
  entry->member = take_int(self, 0, MOST);
  entry->publishes = take_int(self, 0, 2);
  entry->num_waits = take_count(self);
  entry->waits = take_memory(self, (size_t)entry->num_waits, sizeof *entry->waits);
  for (int32_t i = 0; entry->waits && i < entry->num_waits; i++) {
    entry->waits[i].worker = take_int(self, 0, program->num_workers);
    entry->waits[i].position = take_int(self, 0, MOST);
  }
}

static void read_workers(reader *self) {
  lanes_program *program = &self->out->program;
  size_t num_workers = (size_t)program->num_workers, num_teams = (size_t)program->num_teams;
  program->cores = take_memory(self, num_workers, sizeof *program->cores);
  program->num_entries = take_memory(self, num_workers, sizeof *program->num_entries);
  program->entries = take_memory(self, num_workers, sizeof *program->entries);
  program->team_sizes = take_memory(self, num_teams, sizeof *program->team_sizes);
  program->teams = take_memory(self, num_teams, sizeof *program->teams);
  if (self->status != LANES_OK) return;
  for (size_t i = 0; i < num_workers; i++) program->cores[i] = take_int(self, -1, MOST);
  for (size_t i = 0; i < num_teams; i++)
    program->teams[i] = take_list(self, &program->team_sizes[i], program->num_workers);
  for (size_t i = 0; i < num_workers && self->status == LANES_OK; i++) {
    program->num_entries[i] = take_count(self);
    program->entries[i] = take_memory(self, (size_t)program->num_entries[i], sizeof(lanes_entry));
    for (int32_t k = 0; k < program->num_entries[i] && self->status == LANES_OK; k++)
      read_entry(self, &program->entries[i][k]);
  }
}

int lanes_words_alloc(const int64_t *words, size_t count, int64_t arena_bytes, int64_t weight_bytes,
                      lanes_words *out) {
  *out = (lanes_words){0};
  reader self = {.next = words, .end = words + count, .out = out, .status = LANES_OK};
  self.arena_bytes = arena_bytes;
  self.weight_bytes = weight_bytes;
  take(&self, LANES_WORDS_VERSION, LANES_WORDS_VERSION + 1);
  out->num_slots = take_int(&self, 0, MOST);
  out->num_functions = take_int(&self, 0, MOST);
  out->num_tensors = take_count(&self);
  out->tensors = take_memory(&self, (size_t)out->num_tensors, sizeof *out->tensors);
  for (int32_t i = 0; i < out->num_tensors && self.status == LANES_OK; i++)
    read_tensor(&self, &out->tensors[i]);
  out->program.num_steps = take_count(&self);
  out->steps = take_memory(&self, (size_t)out->program.num_steps, sizeof *out->steps);
  for (int32_t i = 0; i < out->program.num_steps && self.status == LANES_OK; i++)
    read_step(&self, &out->steps[i]);
  out->program.num_workers = take_count(&self);
  out->program.num_teams = take_int(&self, 0, MOST);
  if (self.status == LANES_OK) read_workers(&self);
  if (self.status == LANES_OK && self.next != self.end) self.status = LANES_BAD_PROGRAM;
  if (self.status != LANES_OK) lanes_words_free(out);
  return self.status;
}

void lanes_words_free(lanes_words *self) {
  for (block *each = self->blocks, *next; each; each = next) {
    next = each->next;
    free(each);
  }
  *self = (lanes_words){0};
}
