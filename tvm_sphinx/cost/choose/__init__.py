"""One decision per kernel and device class: which implementation runs, and what it costs."""
