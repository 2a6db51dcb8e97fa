"""Whether a program computes what the source of its model does. [TVM]"""
