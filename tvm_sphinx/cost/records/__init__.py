"""What was measured, on disk: times, and the kernels that they are of."""
