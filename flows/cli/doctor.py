"""`flows doctor`: look for what is wrong with the database, for people and for monitoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flows.cli.options import debug_option, location_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.cli.diagnosis import Finding

__all__ = ["doctor"]

_CODES = {"ok": 0, "warning": 1, "error": 2}


@click.command()
@click.option(
    "--shards",
    type=click.IntRange(min=1),
    help="Shards per workflow that workers are started with; checks that none is left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@location_options
@debug_option
def doctor(*, shards: int | None, as_json: bool, dsn: str | None, schema: str) -> int:
    """Look for what is wrong with the database, and say what to do about it.

    Exit code 0 if all is well, 1 for warnings, 2 for errors. Nothing is changed.
    """
    import msgspec  # noqa: PLC0415  --help loads no database driver

    from flows.cli.diagnosis import verdict  # noqa: PLC0415
    from flows.cli.examination import examine  # noqa: PLC0415
    from flows.cli.output import as_json_text, write  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415

    config = DBConfig(schema=schema)
    with open_session(dsn) as session:
        findings = examine(session.connection, config, shards)
    worst = verdict(findings)
    if as_json:
        write(as_json_text({"verdict": worst, "findings": msgspec.to_builtins(findings)}))
    else:
        write(_page(findings))
    return _CODES[worst]


def _page(findings: Sequence[Finding]) -> str:
    from flows.cli.plain import printable  # noqa: PLC0415

    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<7}  {finding.check:<12}  {printable(finding.told)}")
        if finding.remedy is not None:
            lines.append(f"{'':<7}  {'':<12}  -> {printable(finding.remedy)}")
    return "".join(f"{line}\n" for line in lines)
