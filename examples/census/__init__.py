"""A real job: measure every file of Python's standard library, a task for each, under chicoryd."""
