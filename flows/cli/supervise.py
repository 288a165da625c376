"""`flows supervise`: run the workflows of an application in processes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from flows.cli.options import Seconds, database_options, debug_option, is_debug

__all__ = ["supervise"]


@click.command()
@click.argument("target", metavar="APP:REGISTRY")
@database_options
@click.option(
    "--listen-dsn",
    metavar="DSN",
    help="The same database without its pooler, where there is one: to hear of runs at once."
    " By default $FLOWS_LISTEN_URL.",
)
@click.option(
    "--grace",
    type=Seconds(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running attempts may take to finish when asked to stop.",
)
@click.option(
    "--poll",
    type=Seconds(0.25),
    default=180.0,
    show_default=True,
    metavar="SECONDS",
    help="How rarely idle workers look for runs and events of which nobody has told them.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Run this workflow and no other; may be given several times.",
)
@click.option(
    "--begin",
    "begins",
    multiple=True,
    metavar="NAME=JSON",
    help="Begin a run first; may be given several times. Where one is wrong none is begun.",
)
@click.option(
    "--drain",
    is_flag=True,
    help="End when no run is unfinished, and print the outputs of the runs begun here."
    " The exit code is 1 if runs have failed.",
)
@click.option(
    "--start-method",
    type=click.Choice(["fork", "spawn"]),
    help="Where processes come from: forked from one that has imported the application (the"
    " default on Linux), or a fresh interpreter each.",
)
@click.option(
    "--no-preload",
    is_flag=True,
    help="The same as --start-method spawn.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines with the name of their process before them, or a JSON object each.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="Level of the root logger, where the application sets up no logging of its own.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="Reload when a source file of the application changes: for development.",
)
@click.option(
    "--control",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where commands as `flows status` reach this supervisor; by default a socket of its own"
    " in the folder .flows.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Serve /metrics for Prometheus here, with /live and /ready; needs pgflows[metrics].",
)
@debug_option
def supervise(
    *,
    target: str,
    dsn: str | None,
    listen_dsn: str | None,
    schema: str,
    shards: int,
    grace: float,
    poll: float,
    only: tuple[str, ...],
    begins: tuple[str, ...],
    drain: bool,
    start_method: Literal["fork", "spawn"] | None,
    no_preload: bool,
    log_format: Literal["text", "json"],
    log_level: str | None,
    reload: bool,
    control: Path | None,
    metrics: str | None,
) -> int:
    """Run the workflows of an application, each in processes of its own.

    APP:REGISTRY names the registry, as in "app:registry" for the variable registry of app.py.
    TERM or Ctrl-C lets running attempts finish; a second one stops at once. Runs that were
    interrupted are taken up at the next start.
    """
    if no_preload:
        if start_method == "fork":
            raise click.UsageError("--no-preload and --start-method fork exclude each other")
        start_method = "spawn"
    from flows.config import DBConfig  # noqa: PLC0415  --help loads no database driver
    from flows.supervisor.preparation import parse_begin  # noqa: PLC0415
    from flows.supervisor.streams import LogStyle  # noqa: PLC0415
    from flows.supervisor.supervise import Request, supervise  # noqa: PLC0415

    return supervise(
        Request(
            target,
            dsn=dsn,
            listen_dsn=listen_dsn,
            config=DBConfig(schema=schema, shard_count=shards),
            grace_s=grace,
            poll_s=poll,
            only=only,
            begins=tuple(parse_begin(text) for text in begins),
            drain=drain,
            start_method=start_method,
            log=LogStyle(log_format, log_level.upper() if log_level else None),
            reload=reload,
            control=control,
            metrics=metrics,
            debug=is_debug(),
        )
    )
