"""Chicory beside other task queues: the same workloads on the same servers in one run, counted by what tasks did.

`programs/` has a small program for each queue, which runs in a virtual environment of its own; the rest of this
directory starts those programs, reads what their tasks have written down, and says what follows.
"""
