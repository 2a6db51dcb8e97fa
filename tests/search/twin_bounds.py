"""The lower bounds in plain Python, step by step as the core computes them, and simpler ones."""

from __future__ import annotations

from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem

Rows = list[list[int]]

_MOST = 2**63 - 1


def heads(problem: SchedulingProblem) -> Rows:
    head = problem.release_ns.tolist()
    for (src, dst), kind in _edges(problem, by=1):
        for on in range(problem.num_devices):
            ready = [
                head[src][other] + exec_ns + int(problem.copy_ns[kind, other, on])
                for other, exec_ns in _choices(problem, src)
            ]
            head[dst][on] = max(head[dst][on], min(ready))
    return head


def tails(problem: SchedulingProblem) -> Rows:
    tail = problem.delivery_ns.tolist()
    for (src, dst), kind in reversed(_edges(problem, by=0)):
        for on in range(problem.num_devices):
            rest = [
                tail[dst][other] + exec_ns + int(problem.copy_ns[kind, on, other])
                for other, exec_ns in _choices(problem, dst)
            ]
            tail[src][on] = max(tail[src][on], min(rest))
    return tail


def critical_path(problem: SchedulingProblem) -> int:
    head, tail = heads(problem), tails(problem)
    return max(
        min(head[task][on] + exec_ns + tail[task][on] for on, exec_ns in _choices(problem, task))
        for task in range(problem.num_tasks)
    )


def core_load(problem: SchedulingProblem) -> int:
    work = sum(
        min(exec_ns * len(problem.core_groups[on]) for on, exec_ns in _choices(problem, task))
        for task in range(problem.num_tasks)
    )
    return -(-work // _num_resources(problem))


def load_weights(problem: SchedulingProblem) -> list[int]:
    """Return the weights of the resources, by a subgradient search in whole numbers."""
    count = _num_resources(problem)
    now, best, best_value = [(1 << 30) // count] * count, [0] * count, -1
    for step in range(80):
        value, load = 0, [0] * count
        for task in range(problem.num_tasks):
            cost, device, exec_ns = min(
                (exec_ns * _price(problem, now, on), on, exec_ns)
                for on, exec_ns in _choices(problem, task)
            )
            value += cost
            for resource in problem.core_groups[device]:
                load[resource] += exec_ns
        if value > best_value:
            best_value, best = value, [(weight + (1 << 19)) >> 20 for weight in now]
        bits = max(0, max(load).bit_length() - 30)
        highest = max(1, max(load) >> bits)
        now = [
            max(1, weight - weight * (highest - (busy >> bits)) // highest * 4 // (8 + step))
            for weight, busy in zip(now, load, strict=True)
        ]
        now = [max(1, (weight << 30) // total) for total in [sum(now)] for weight in now]
    return best if any(best) else [1] * count


def combined(problem: SchedulingProblem) -> int:
    """Return the best load of a set of tasks plus what comes before and after all of it."""
    head, tail, best = heads(problem), tails(problem), 0
    tasks = range(problem.num_tasks)
    first = [min(head[task][on] for on, _ in _choices(problem, task)) for task in tasks]
    last = [min(tail[task][on] for on, _ in _choices(problem, task)) for task in tasks]
    for weights in ([1] * _num_resources(problem), load_weights(problem)):
        total = sum(weights)
        for place in range(64):
            begin, done = sorted(first)[place * (len(first) - 1) // 63], 0
            for task in sorted(tasks, key=lambda task: -last[task]):
                if first[task] >= begin:
                    done += min(
                        exec_ns * _price(problem, weights, on) for on, exec_ns in _choices(problem, task)
                    )
                    best = max(best, begin - (-done // total) + last[task])
    return best


def _choices(problem: SchedulingProblem, task: int) -> list[tuple[int, int]]:
    return [(on, ns) for on, ns in enumerate(problem.exec_ns[task].tolist()) if ns != CANNOT_RUN]


def _edges(problem: SchedulingProblem, by: int) -> list[tuple[tuple[int, int], int]]:
    edges = zip(map(tuple, problem.edges.tolist()), problem.copy_class.tolist(), strict=True)
    return sorted(edges, key=lambda edge: edge[0][by])


def _num_resources(problem: SchedulingProblem) -> int:
    return 1 + max(max(group) for group in problem.core_groups)


def _price(problem: SchedulingProblem, weights: list[int], device: int) -> int:
    return sum(weights[resource] for resource in problem.core_groups[device])
