"""Search: spaces, heuristics, CPGA and exact search over a scheduling problem."""
