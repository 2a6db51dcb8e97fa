"""The task graph, the scheduling problem, schedules and their checker. Knows nothing of TVM."""
