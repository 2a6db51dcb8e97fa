"""What kernels, copies and hand-overs take, measured in the lanes."""
