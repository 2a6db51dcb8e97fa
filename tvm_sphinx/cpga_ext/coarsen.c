#include "coarsen.h"

#include <stdlib.h>
#include <string.h>

/* Blocks that are visited to look for another path, at most; beyond, there may be one. */
#define MAX_VISITS 256
/* One in so much of the shorter end counts as lost where something else could run meanwhile. */
#define BESIDE_ONE_IN 4
/* Work of a block at most, in mean blocks. */
#define LARGEST_BLOCK 3
#define RATING_BITS 20

typedef struct link {
    int32_t src;
    int32_t dst;
    int64_t copy_ns; /* mean over pairs of unlike devices, summed over the edges in between */
} link;

typedef struct rated {
    int64_t rating;
    int32_t link;
} rated;

typedef struct coarse {
    const cpga_problem *problem;
    int32_t num_blocks;
    int32_t num_links;
    int64_t *exec_ns; /* [block][device]; CPGA_CANNOT_RUN where one of its tasks cannot */
    int64_t *work_ns; /* on the best device */
    link *links;      /* by source, then destination */
    int32_t *begin;   /* num_blocks + 1: links of each source */
    int32_t *num_preds;
    int32_t *mate; /* merged with in this round; -1: none */
    int32_t *seen; /* stamps of visits */
    int32_t stamp;
    int32_t *stack;
    int32_t *number; /* of each block, in the next round */
    rated *rating;
} coarse;

static void free_coarse(coarse *self) {
    free(self->exec_ns);
    free(self->work_ns);
    free(self->links);
    free(self->begin);
    free(self->num_preds);
    free(self->mate);
    free(self->seen);
    free(self->stack);
    free(self->number);
    free(self->rating);
}

static int64_t least_of(const coarse *self, const int64_t *exec_ns) {
    int64_t least = INT64_MAX;
    for (int32_t on = 0; on < self->problem->num_devices; on++) {
        if (exec_ns[on] != CPGA_CANNOT_RUN)
            least = cpga_min(least, exec_ns[on]);
    }
    return least;
}

static const int64_t *exec_of(const coarse *self, int32_t block) {
    return self->exec_ns + (int64_t)block * self->problem->num_devices;
}

/* Time of both on their best common device; INT64_MAX if there is none. */
static int64_t joint_work(const coarse *self, int32_t a, int32_t b) {
    const int64_t *first = exec_of(self, a), *second = exec_of(self, b);
    int64_t least = INT64_MAX;
    for (int32_t on = 0; on < self->problem->num_devices; on++) {
        if (first[on] != CPGA_CANNOT_RUN && second[on] != CPGA_CANNOT_RUN)
            least = cpga_min(least, first[on] + second[on]);
    }
    return least;
}

static int init_coarse(coarse *self, const cpga_problem *problem) {
    int32_t tasks = problem->num_tasks;
    int64_t cells = (int64_t)tasks * problem->num_devices;
    memset(self, 0, sizeof *self);
    self->problem = problem;
    self->exec_ns = cpga_calloc(cells, (int64_t)sizeof *self->exec_ns);
    self->work_ns = cpga_calloc(tasks, (int64_t)sizeof *self->work_ns);
    self->links = cpga_calloc(problem->num_edges, (int64_t)sizeof *self->links);
    self->begin = cpga_calloc((int64_t)tasks + 1, (int64_t)sizeof *self->begin);
    self->num_preds = cpga_calloc(tasks, (int64_t)sizeof *self->num_preds);
    self->mate = cpga_calloc(tasks, (int64_t)sizeof *self->mate);
    self->seen = cpga_calloc(tasks, (int64_t)sizeof *self->seen);
    self->stack = cpga_calloc((int64_t)problem->num_edges + tasks, (int64_t)sizeof *self->stack);
    self->number = cpga_calloc(tasks, (int64_t)sizeof *self->number);
    self->rating = cpga_calloc(problem->num_edges, (int64_t)sizeof *self->rating);
    if (self->exec_ns == NULL || self->work_ns == NULL || self->links == NULL ||
        self->begin == NULL || self->num_preds == NULL || self->mate == NULL ||
        self->seen == NULL || self->stack == NULL || self->number == NULL || self->rating == NULL)
        return CPGA_ERR_MEMORY;
    self->num_blocks = tasks;
    self->num_links = problem->num_edges;
    memcpy(self->exec_ns, problem->exec_ns, (size_t)cells * sizeof *self->exec_ns);
    for (int32_t task = 0, i = 0; task < tasks; task++) {
        for (; i < problem->succ_begin[task + 1]; i++)
            self->links[i] = (link){task, problem->succ[i].task,
                                    cpga_mean_copy(problem, problem->succ[i].copy, 0)};
    }
    return CPGA_OK;
}

/* Index the links, which are sorted, and forget the merges of the last round. */
static void begin_round(coarse *self) {
    memset(self->num_preds, 0, (size_t)self->num_blocks * sizeof *self->num_preds);
    for (int32_t block = 0, i = 0; block < self->num_blocks; block++) {
        self->begin[block] = i;
        for (; i < self->num_links && self->links[i].src == block; i++)
            self->num_preds[self->links[i].dst]++;
        self->work_ns[block] = least_of(self, exec_of(self, block));
        self->mate[block] = -1;
    }
    self->begin[self->num_blocks] = self->num_links;
}

/* What contracting a link is worth, per time of the block that comes of it; below 0: nothing. */
static int64_t rate(const coarse *self, const link *at) {
    int64_t first = self->work_ns[at->src], second = self->work_ns[at->dst];
    int64_t joint = joint_work(self, at->src, at->dst), beside = 0;
    if (joint == INT64_MAX)
        return -1;
    if (self->begin[at->src + 1] - self->begin[at->src] > 1)
        beside += second / BESIDE_ONE_IN;
    if (self->num_preds[at->dst] > 1)
        beside += first / BESIDE_ONE_IN;
    int64_t gain = at->copy_ns - (joint - first - second) - beside, per = first + second + 1;
    for (; gain >= (INT64_C(1) << (62 - RATING_BITS)); gain /= 2)
        per = 1 + per / 2;
    return gain < 0 ? -1 : (gain << RATING_BITS) / per;
}

static int compare_rated(const void *a, const void *b) {
    const rated *first = a, *second = b;
    if (first->rating != second->rating)
        return first->rating > second->rating ? -1 : 1;
    return (first->link > second->link) - (first->link < second->link);
}

/* Put the unseen successors of a block on the stack, and return its new height; -1 if `wanted` is
 * one of them. */
static int32_t push_successors(coarse *self, int32_t block, int32_t wanted, int32_t height) {
    for (int32_t i = self->begin[block]; i < self->begin[block + 1]; i++) {
        int32_t next = self->links[i].dst;
        if (next == wanted)
            return -1;
        if (self->seen[next] != self->stamp) {
            self->seen[next] = self->stamp;
            self->stack[height++] = next;
        }
    }
    return height;
}

/* Whether a path leads from src to dst beside their link, with the merges of this round. */
static int may_go_around(coarse *self, int32_t src, int32_t dst) {
    int32_t height = 0;
    self->stamp++;
    for (int32_t i = self->begin[src]; i < self->begin[src + 1]; i++) {
        if (self->links[i].dst != dst && self->seen[self->links[i].dst] != self->stamp) {
            self->seen[self->links[i].dst] = self->stamp;
            self->stack[height++] = self->links[i].dst;
        }
    }
    for (int32_t visits = 0; height > 0; visits++) {
        if (visits == MAX_VISITS)
            return 1;
        int32_t block = self->stack[--height], mate = self->mate[block];
        height = push_successors(self, block, dst, height);
        if (height >= 0 && mate >= 0)
            height = push_successors(self, mate, dst, height);
        if (height < 0)
            return 1;
    }
    return 0;
}

/* Merge the ends of links, the best rated first; return how many. */
static int32_t merge_round(coarse *self, int32_t target, int64_t most_ns) {
    int32_t count = 0, merged = 0;
    for (int32_t i = 0; i < self->num_links; i++) {
        int64_t rating = rate(self, &self->links[i]);
        if (rating >= 0)
            self->rating[count++] = (rated){rating, i};
    }
    qsort(self->rating, (size_t)count, sizeof *self->rating, compare_rated);
    for (int32_t i = 0; i < count && self->num_blocks - merged > target; i++) {
        int32_t src = self->links[self->rating[i].link].src;
        int32_t dst = self->links[self->rating[i].link].dst;
        if (self->mate[src] >= 0 || self->mate[dst] >= 0 || joint_work(self, src, dst) > most_ns ||
            may_go_around(self, src, dst))
            continue;
        self->mate[src] = dst;
        self->mate[dst] = src;
        merged++;
    }
    return merged;
}

static int compare_links(const void *a, const void *b) {
    const link *first = a, *second = b;
    if (first->src != second->src)
        return first->src < second->src ? -1 : 1;
    return (first->dst > second->dst) - (first->dst < second->dst);
}

/* Name each pair of mates by its source, and number them in topological order. */
static void number_blocks(coarse *self) {
    int32_t *waiting = self->num_preds, *ready = self->stack, end = 0;
    for (int32_t block = 0; block < self->num_blocks; block++) {
        int32_t mate = self->mate[block];
        self->seen[block] = mate >= 0 && mate < block ? mate : block;
    }
    memset(waiting, 0, (size_t)self->num_blocks * sizeof *waiting);
    for (int32_t i = 0; i < self->num_links; i++)
        waiting[self->seen[self->links[i].dst]] +=
            self->seen[self->links[i].src] != self->seen[self->links[i].dst];
    for (int32_t block = 0; block < self->num_blocks; block++) {
        if (self->seen[block] == block && waiting[block] == 0)
            ready[end++] = block;
    }
    for (int32_t place = 0; place < end; place++) {
        int32_t members[2] = {ready[place], self->mate[ready[place]]};
        for (int32_t k = 0; k < 2 && members[k] >= 0; k++) {
            self->number[members[k]] = place;
            for (int32_t i = self->begin[members[k]]; i < self->begin[members[k] + 1]; i++) {
                int32_t next = self->seen[self->links[i].dst];
                if (next != ready[place] && --waiting[next] == 0)
                    ready[end++] = next;
            }
        }
    }
}

/* Make the pairs of this round the blocks of the next one. */
static int contract(coarse *self, int32_t merged) {
    int32_t devices = self->problem->num_devices, kept = 0;
    int64_t *sum =
        cpga_calloc((int64_t)(self->num_blocks - merged) * devices, (int64_t)sizeof *sum);
    if (sum == NULL)
        return CPGA_ERR_MEMORY;
    number_blocks(self);
    for (int32_t block = 0; block < self->num_blocks; block++) {
        for (int32_t on = 0; on < devices; on++) {
            int64_t *to = &sum[(int64_t)self->number[block] * devices + on];
            int64_t exec_ns = exec_of(self, block)[on];
            int fits = *to != CPGA_CANNOT_RUN && exec_ns != CPGA_CANNOT_RUN;
            *to = fits ? *to + exec_ns : CPGA_CANNOT_RUN;
        }
    }
    free(self->exec_ns);
    self->exec_ns = sum;
    for (int32_t i = 0; i < self->num_links; i++) {
        link at = self->links[i];
        if (self->number[at.src] != self->number[at.dst])
            self->links[kept++] = (link){self->number[at.src], self->number[at.dst], at.copy_ns};
    }
    qsort(self->links, (size_t)kept, sizeof *self->links, compare_links);
    self->num_links = 0;
    for (int32_t i = 0; i < kept; i++) {
        link *last = &self->links[cpga_imax(0, self->num_links - 1)];
        if (self->num_links > 0 && compare_links(last, &self->links[i]) == 0)
            last->copy_ns += self->links[i].copy_ns;
        else
            self->links[self->num_links++] = self->links[i];
    }
    self->num_blocks -= merged;
    memset(self->seen, 0, (size_t)self->num_blocks * sizeof *self->seen);
    self->stamp = 0;
    return CPGA_OK;
}

int cpga_coarsen(const cpga_problem *problem, int32_t target, int32_t *block, int32_t *num_blocks) {
    coarse work;
    int status = init_coarse(&work, problem);
    int32_t merged = status == CPGA_OK;
    int64_t most_ns = 0;
    for (int32_t task = 0; task < problem->num_tasks; task++) {
        most_ns += cpga_fastest_exec(problem, task);
        block[task] = task;
    }
    most_ns = most_ns / cpga_imax(1, target) * LARGEST_BLOCK;
    while (status == CPGA_OK && merged > 0 && work.num_blocks > target) {
        begin_round(&work);
        merged = merge_round(&work, target, most_ns);
        status = contract(&work, merged);
        for (int32_t task = 0; task < problem->num_tasks && status == CPGA_OK; task++)
            block[task] = work.number[block[task]];
    }
    *num_blocks = work.num_blocks;
    free_coarse(&work);
    return status;
}
