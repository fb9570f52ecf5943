"""Examine the broker: what it keeps, what it may lose, and what to change."""

import json
from pathlib import Path

import click

from chicory.cli.config import file_option


@click.command()
@file_option
@click.option("--app", metavar="MODULE:APP", help="Import this app, whose code says which broker it uses.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def doctor(file: Path | None, app: str | None, as_json: bool) -> int:
    """Examine the broker of FILE: a line for each finding, with what to do about it.  Exit 1 when one is an error."""
    import trio

    from chicory.app import Chicory
    from chicory.loading import import_app
    from chicory.types import Finding, Gravity

    examined = import_app(app) if app is not None else Chicory()
    examined.configure(file)

    async def examine() -> list[Finding]:
        async with examined:
            return await examined.broker.examine()

    found = trio.run(examine)
    ill = any(finding.gravity is Gravity.ERROR for finding in found)
    if as_json:
        told = [{"gravity": one.gravity, "what": one.what, "remedy": one.remedy} for one in found]
        click.echo(json.dumps({"schema": 1, "healthy": not ill, "findings": told}, indent=2))
        return int(ill)
    width = max(len(one.gravity) for one in found)
    for one in found:
        click.echo(f"{one.gravity:<{width}}  {one.what}")
        if one.remedy:
            click.echo(f"{'':<{width}}  -> {one.remedy}")
    return int(ill)
