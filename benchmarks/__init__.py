"""How fast and how small Chicory is, beside a bare loop that does the same Redis commands in the same run."""
