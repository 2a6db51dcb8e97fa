#include "lanes_words.h"

#include "words_reader.h"

typedef struct {
    words_reader words;
    lanes_words *out;
} reader;

static void read_tensor(reader *self, lanes_tensor *tensor) {
    tensor->space =
        words_int(&self->words, 0, (int64_t)self->out->num_spaces + self->out->num_slots);
    tensor->offset = words_take(&self->words, 0, INT64_MAX);
    tensor->type_code = (uint8_t)words_take(&self->words, 0, UINT8_MAX + 1);
    tensor->type_bits = (uint8_t)words_take(&self->words, 1, UINT8_MAX + 1);
    tensor->type_lanes = (uint16_t)words_take(&self->words, 1, UINT16_MAX + 1);
    tensor->ndim = words_int(&self->words, 0, 64);
    tensor->shape = words_memory(&self->words, 2 * (size_t)tensor->ndim, sizeof *tensor->shape);
    if (!tensor->shape)
        return;
    tensor->strides = tensor->shape + tensor->ndim;
    int64_t elements = 1;
    for (int32_t i = 0; i < tensor->ndim; i++) {
        tensor->shape[i] = words_take(&self->words, 0, INT64_MAX);
        if (tensor->shape[i] && elements > INT64_MAX / 65536 / tensor->shape[i])
            self->words.status = LANES_BAD_PROGRAM;
        else
            elements *= tensor->shape[i];
    }
    for (int64_t i = tensor->ndim - 1, stride = 1; i >= 0; stride *= tensor->shape[i--])
        tensor->strides[i] = stride;
    if (self->words.status != LANES_OK)
        return;
    tensor->bytes = elements * ((tensor->type_bits * tensor->type_lanes + 7) / 8);
    if (tensor->space < self->out->num_spaces &&
        tensor->offset > self->out->space_bytes[tensor->space] - tensor->bytes)
        self->words.status = LANES_BAD_PROGRAM;
}

static void read_step(reader *self, lanes_step *step) {
    lanes_words *out = self->out;
    step->kind = words_int(&self->words, LANES_NOTHING, LANES_FEED + 1);
    step->function = 0;
    if (step->kind == LANES_CALL)
        step->function = words_int(&self->words, 0, out->num_functions);
    if (step->kind == LANES_FEED && out->num_spaces > LANES_FIRST_CARD)
        step->function = words_int(&self->words, 0, WORDS_MOST);
    step->operands = words_list(&self->words, &step->num_operands, out->num_tensors);
    if (self->words.status != LANES_OK || step->kind != LANES_COPY)
        return;
    if (step->num_operands != 2 ||
        out->tensors[step->operands[0]].bytes != out->tensors[step->operands[1]].bytes)
        self->words.status = LANES_BAD_PROGRAM;
}

static void read_entry(reader *self, lanes_entry *entry) {
    lanes_program *program = &self->out->program;
    entry->step = words_int(&self->words, 0, program->num_steps);
    entry->team = words_int(&self->words, -1, program->num_teams);
    entry->member = words_int(&self->words, 0, WORDS_MOST);
    entry->publishes = words_int(&self->words, 0, 2);
    entry->num_waits = words_count(&self->words);
    entry->waits = words_memory(&self->words, (size_t)entry->num_waits, sizeof *entry->waits);
    for (int32_t i = 0; entry->waits && i < entry->num_waits; i++) {
        entry->waits[i].worker =
            words_int(&self->words, 0, (int64_t)program->num_workers + program->num_counters);
        entry->waits[i].position = words_int(&self->words, 0, WORDS_MOST);
    }
}

static void read_workers(reader *self) {
    lanes_program *program = &self->out->program;
    size_t num_workers = (size_t)program->num_workers, num_teams = (size_t)program->num_teams;
    program->cores = words_memory(&self->words, num_workers, sizeof *program->cores);
    program->num_entries = words_memory(&self->words, num_workers, sizeof *program->num_entries);
    program->entries = words_memory(&self->words, num_workers, sizeof *program->entries);
    program->team_sizes = words_memory(&self->words, num_teams, sizeof *program->team_sizes);
    program->teams = words_memory(&self->words, num_teams, sizeof *program->teams);
    program->speeds = words_memory(&self->words, num_teams, sizeof *program->speeds);
    if (self->words.status != LANES_OK)
        return;
    for (size_t i = 0; i < num_workers; i++)
        program->cores[i] = words_int(&self->words, -1, WORDS_MOST);
    for (size_t i = 0; i < num_teams && self->words.status == LANES_OK; i++) {
        int32_t num_speeds = 0;
        program->teams[i] = words_list(&self->words, &program->team_sizes[i], program->num_workers);
        program->speeds[i] = words_list(&self->words, &num_speeds, LANES_MOST_SPEED + 1);
        if (num_speeds != program->team_sizes[i])
            self->words.status = LANES_BAD_PROGRAM;
    }
    for (size_t i = 0; i < num_workers && self->words.status == LANES_OK; i++) {
        program->num_entries[i] = words_count(&self->words);
        program->entries[i] =
            words_memory(&self->words, (size_t)program->num_entries[i], sizeof(lanes_entry));
        for (int32_t k = 0; k < program->num_entries[i] && self->words.status == LANES_OK; k++)
            read_entry(self, &program->entries[i][k]);
    }
}

int lanes_words_alloc(const int64_t *words, size_t count, lanes_words *out) {
    *out = (lanes_words){0};
    reader self = {.words = {words, words + count, &out->blocks, LANES_OK}, .out = out};
    words_take(&self.words, LANES_WORDS_VERSION, LANES_WORDS_VERSION + 1);
    out->num_spaces = words_count(&self.words);
    out->space_bytes = words_memory(&self.words, (size_t)out->num_spaces, sizeof *out->space_bytes);
    for (int32_t i = 0; out->space_bytes && i < out->num_spaces; i++)
        out->space_bytes[i] = words_take(&self.words, 0, INT64_MAX);
    if (out->num_spaces < LANES_FIRST_CARD)
        self.words.status = LANES_BAD_PROGRAM;
    out->num_slots = words_int(&self.words, 0, WORDS_MOST);
    out->num_functions = words_int(&self.words, 0, WORDS_MOST);
    out->num_tensors = words_count(&self.words);
    out->tensors = words_memory(&self.words, (size_t)out->num_tensors, sizeof *out->tensors);
    for (int32_t i = 0; i < out->num_tensors && self.words.status == LANES_OK; i++)
        read_tensor(&self, &out->tensors[i]);
    out->program.num_steps = words_count(&self.words);
    out->steps = words_memory(&self.words, (size_t)out->program.num_steps, sizeof *out->steps);
    for (int32_t i = 0; i < out->program.num_steps && self.words.status == LANES_OK; i++)
        read_step(&self, &out->steps[i]);
    out->program.num_workers = words_count(&self.words);
    out->program.num_teams = words_int(&self.words, 0, WORDS_MOST);
    out->program.num_feeders = words_int(&self.words, 0, (int64_t)out->program.num_workers + 1);
    out->program.num_counters = words_int(&self.words, 0, WORDS_MOST);
    if (LANES_FIRST_CARD + 2 * out->program.num_feeders != out->num_spaces)
        self.words.status = LANES_BAD_PROGRAM;
    if (self.words.status == LANES_OK)
        read_workers(&self);
    if (self.words.status == LANES_OK && self.words.next != self.words.end)
        self.words.status = LANES_BAD_PROGRAM;
    if (self.words.status != LANES_OK)
        lanes_words_free(out);
    return self.words.status;
}

void lanes_words_free(lanes_words *self) {
    words_free(&self->blocks);
    *self = (lanes_words){0};
}
