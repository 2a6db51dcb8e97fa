"""Tune kernels with TVM's MetaSchedule, and find what was tuned again. [TVM]

`session.tune_kernels` searches; `store.TuningStore` keeps what it measures in MetaSchedule's own JSON files;
`apply.TunedKernels` gives `compile` the fastest schedules on record.
"""
