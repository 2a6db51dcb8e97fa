"""
A scheduling problem of your own
================================

The search and the checker need no network and no TVM: tasks with precedences, devices, copies that
take time. Here they schedule a problem from the literature, say how far from the optimum the result
can be, and check what another tool made of it.
"""

# %%
# A problem file
# --------------
# The ten tasks of Topcuoglu, Hariri and Wu (2002), on which HEFT was presented. Times are whole
# nanoseconds; ``null`` would say that a task cannot run on a device.
import json
from pathlib import Path

EXEC = [
    [14, 16, 9],
    [13, 19, 18],
    [11, 13, 19],
    [13, 8, 17],
    [12, 13, 10],
    [13, 16, 9],
    [7, 15, 11],
    [5, 11, 14],
    [18, 12, 20],
    [21, 7, 16],
]
EDGES = {
    (0, 1): 18, (0, 2): 12, (0, 3): 9, (0, 4): 11, (0, 5): 14, (1, 7): 19, (1, 8): 16, (2, 6): 23,
    (3, 7): 27, (3, 8): 23, (4, 8): 13, (5, 7): 15, (6, 9): 17, (7, 9): 11, (8, 9): 13,
}  # fmt: skip
content = {
    "devices": ["p1", "p2", "p3"],
    "exec_ns": EXEC,
    "edges": [list(edge) for edge in EDGES],
    "copy_ns": [
        [[0 if a == b else copy for b in range(3)] for a in range(3)] for copy in EDGES.values()
    ],
}
Path("problem.json").write_text(json.dumps(content))

# %%
# Search
# ------
# As ``tvm-sphinx search problem.json -o schedule.json`` does. HEFT comes to 80, CPOP to 86; the
# optimum is 73. The certified gap is what the search can prove by itself.
from tvm_sphinx import search_schedule
from tvm_sphinx.scheduling.problem_file import read_problem

problem = read_problem("problem.json")
for algorithm in ("heft", "cpop", "single", "cpga"):
    best = search_schedule(problem, algorithm=algorithm, seed=0).best
    print(f"{algorithm:>6}: {best.makespan_ns} ns, at most {best.gap:.0%} above the optimum")
assert best.makespan_ns == 73
print(f"no schedule is shorter than {best.lower_bound_ns} ns")

# %%
# Proof
# -----
# With OR-Tools (``pip install 'tvm-sphinx[exact]'``) ``algorithm="exact"`` goes on until the optimum
# is proven.
from importlib.util import find_spec

if find_spec("ortools"):
    exact = search_schedule(problem, algorithm="exact")
    print(f"{exact.best}: ended by {exact.stop_reason}")
    assert exact.best.makespan_ns == exact.best.lower_bound_ns == 73

# %%
# Another tool's schedule
# -----------------------
# Any tool will do that writes devices and times. This one takes tasks in their order, and puts each
# where it ends first.
device: list[int] = []
start: list[int] = []
finish: list[int] = []
free = [0, 0, 0]
for task, times in enumerate(EXEC):
    options = []
    for place in range(3):
        ready = free[place]
        for (source, target), copy in EDGES.items():
            if target == task:
                ready = max(ready, finish[source] + (copy if device[source] != place else 0))
        options.append((ready + times[place], ready, place))
    end, begin, place = min(options)
    device.append(place)
    start.append(begin)
    finish.append(end)
    free[place] = end
greedy = {"device": device, "start_ns": start, "finish_ns": finish, "makespan_ns": max(finish)}
Path("greedy.json").write_text(json.dumps(greedy))

# %%
# Check it
# --------
# As ``tvm-sphinx check problem.json greedy.json`` does: by a checker that knows nothing of any search.
from tvm_sphinx.scheduling.schedule import validate, violations
from tvm_sphinx.scheduling.schedule_file import read_schedule

theirs = read_schedule("greedy.json", problem)
validate(problem, theirs)
print(f"valid, {theirs.makespan_ns} ns: {theirs.makespan_ns / best.makespan_ns:.2f}x as long as ours")
assert theirs.makespan_ns >= best.makespan_ns

# %%
# One whose times cannot be kept is told so, rule by rule.
Path("wrong.json").write_text(json.dumps({**greedy, "start_ns": [0] * 10, "finish_ns": finish}))
told = list(violations(problem, read_schedule("wrong.json", problem)))
print("\n".join(told[:3]))
assert told

# %%
# The schedule, as a picture
# --------------------------
from tvm_sphinx.report.timeline import schedule_svg

Path("05_own_problem.svg").write_text(schedule_svg(problem, best))
