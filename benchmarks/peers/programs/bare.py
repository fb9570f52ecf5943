"""The tasks in a loop, without any queue: `bare.py KIND FIRST COUNT`, what the cores can do at most."""

import sys

from work import work

kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    work(kind, number)
