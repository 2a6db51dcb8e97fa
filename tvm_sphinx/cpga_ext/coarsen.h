/* Blocks of tasks that a coarse search may place as one: multilevel coarsening by edge contraction.
 *
 * After Karypis, Kumar: "A fast and high quality multilevel scheme for partitioning irregular
 * graphs", SIAM J. Sci. Comput. 20(1), 1998, for acyclic graphs: in rounds, edges are contracted
 * that share no end, the best rated first, none that would close a cycle. */
#ifndef CPGA_COARSEN_H
#define CPGA_COARSEN_H

#include "problem.h"

/* Number the blocks in a topological order of the graph between them: block (num_tasks) is set.
 *
 * Rounds end with at most `target` blocks, or when no edge is worth it: the mean of its copies over
 * pairs of unlike devices has to be longer than what is lost because both ends run on one device
 * and, in part, because what runs beside them cannot overlap. No block takes more than three times
 * the mean work of `target` blocks. Colocation is not looked at. */
int cpga_coarsen(const cpga_problem *problem, int32_t target, int32_t *block, int32_t *num_blocks);

#endif
