"""`flows replay`: see whether the code still does what a run has done."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from flows.cli.options import debug_option, location_options

if TYPE_CHECKING:
    from flows.replay import Replay

__all__ = ["replay"]


@click.command()
@click.argument("target", metavar="APP:REGISTRY")
@click.argument("key", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@location_options
@debug_option
def replay(*, target: str, key: str, as_json: bool, dsn: str | None, schema: str) -> None:
    """Execute RUN once more against its memos, and say where the code would now do otherwise.

    Nothing is changed: no step's function is called, and wf.tx can only read. Try new code on runs
    that are finished, or that wait, before you deploy it. Exit code 1 if it does otherwise.
    """
    from flows.cli.output import write  # noqa: PLC0415  --help loads no database driver
    from flows.cli.run_keys import find_key, read_key  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.replay import read_history  # noqa: PLC0415
    from flows.replay import replay as replay_run  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415
    from flows.supervisor.application import load_registry  # noqa: PLC0415

    config = DBConfig(schema=schema)
    named = read_key(key)
    # What the app prints would stand beside the result.
    with contextlib.redirect_stdout(sys.stderr):
        registry = load_registry(target)
        with open_session(dsn) as session:
            check_version(session.connection, config)
            run_key = find_key(session, config, named)
            workflow = registry.get(run_key.workflow_name)
            history = read_history(session.connection, config.schema, run_key)
            result = replay_run(session.connection, workflow, history)
    write(_as_json(result) if as_json else _as_text(result))
    if result.divergences:
        raise SystemExit(1)


def _as_json(result: Replay) -> str:
    import json  # noqa: PLC0415

    divergences = [each._asdict() for each in result.divergences]
    return json.dumps({"end": result.end, "divergences": divergences}, indent=2) + "\n"


def _as_text(result: Replay) -> str:
    lines = [f"{each.what} {each.why}" for each in result.divergences]
    verdict = "the code does otherwise now" if lines else "the code still does what the run did"
    return "\n".join([*lines, f"{verdict}: it {result.end}"]) + "\n"
