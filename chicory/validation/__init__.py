"""Holds arguments and results to a task's type hints, and carries rich values through JSON."""
