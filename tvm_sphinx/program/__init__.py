"""What a compilation returns: a program, its file, and how it is run and compared. [TVM]"""
