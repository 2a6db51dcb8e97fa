"""The native core of the search: arrays and ints in, arrays and ints out; see README.md."""
