"""The concurrent runtime: every device of a schedule works at the same time."""
