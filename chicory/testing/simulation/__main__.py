"""`python -m chicory.testing.simulation`: looks for a seed with which workers, scheduler and lease break a promise."""

import os
import sys
import time

import click

from chicory.testing.simulation.plan import plan
from chicory.testing.simulation.seeds import failing, smallest
from chicory.testing.simulation.world import Report, perform


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Perform this one alone, and tell all that happened.")
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@click.option("--count", type=click.IntRange(min=1), default=1000, show_default=True, help="How many seeds.")
@click.option("--processes", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="How many at once.")
def main(seed: int | None, first: int, count: int, processes: int) -> None:
    """Simulate workers and schedulers whose processes, clocks and connections fail as each seed has it.

    The exit code is 1 when a promise was broken; then the plan is made as small as can be, and shown.
    """
    if seed is not None:
        report = perform(plan(seed))
        click.echo(report.trace)
        sys.exit(_told(report) if report.wrongs else 0)
    began = time.monotonic()
    for found in failing(range(first, first + count), processes):
        sys.exit(_told(perform(plan(found))))
    click.echo(f"{count} seeds, and nothing wrong, in {time.monotonic() - began:.1f} s")


def _told(report: Report) -> int:
    click.echo(told(report))
    return 1


def told(report: Report) -> str:
    """What is wrong in *report*, the smallest plan for it, and how to see it again."""
    small = smallest(report)
    return "\n".join(
        [
            f"seed {report.plan.seed} is wrong:",
            *(f"  {wrong}" for wrong in report.wrongs),
            "and so is what is left of it when as much as possible is taken out:",
            f"  {small.plan}",
            *(f"  {wrong}" for wrong in small.wrongs),
            str(small.trace),
            f"again: python -m chicory.testing.simulation --seed {report.plan.seed}",
        ]
    )


if __name__ == "__main__":
    main()
