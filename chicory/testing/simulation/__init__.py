"""Simulation: workers, schedulers and a memory broker on virtual time, with faults that a seed decides.

`plan` draws a plan from a seed, and `perform` performs it: real workers and schedulers, with the network and the
processes simulated.
"""
