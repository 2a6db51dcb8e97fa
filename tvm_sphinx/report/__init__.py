"""Reports: what runs where, what it was predicted to take, and why."""
