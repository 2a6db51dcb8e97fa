"""From a model file to a task graph: load, fold constants, lower to kernels, extract. [TVM]"""
