"""Lower bounds of the makespan over the best that is found: families of problems, before and after.

    python benchmarks/bounds.py [--graphs tests/data/graphs] [--cpu 2] [FAMILY ...]

"cheap" is the longest chain and the load of sets of tasks; "default" what every search computes, with
its time as a share of the search's; "2 s" what a search of two seconds and more computes. Each is divided by the
best makespan that the search found in ``--cpu`` seconds, or by the optimum where that was proven.
"""

from __future__ import annotations
