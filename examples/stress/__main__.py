"""The command line of the stress harness: `python -m examples.stress --help`."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
import psycopg

from flows import ConfigError, DBConfig, FlowsError, Worker
from flows.cli.options import database_options
from flows.cli.output import write
from flows.cli.session import Session, open_session
from flows.ids import uuid7
from flows.supervisor.exits import ExitCode, exit_code_for, explain

from .generator import begin
from .load import PROGRAM, Settings, load_options, loads_from, seconds
from .report import complaints, make_report, table, write_json
from .tables import GenerationTables
from .watching import Progress, wait
from .workflows import CONCURRENCY_VARIABLE, DEFAULT_CONCURRENCY, registry_for

F = TypeVar("F", bound="Callable[..., Any]")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; an error becomes one line, and an exit code."""
    try:
        result = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else PROGRAM
        tell(f"error: {error.format_message()} (see: {command} --help)")
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except (FlowsError, click.ClickException, psycopg.Error, OSError) as error:
        tell("error: " + explain(error).replace("\n", "; "))
        if isinstance(error, click.ClickException):
            return error.exit_code
        return ExitCode.USAGE if isinstance(error, ConfigError) else exit_code_for(error)
    return result if isinstance(result, int) else ExitCode.OK


def tell(text: str) -> None:
    """Write a line to stderr."""
    click.echo(f"stress: {text}", err=True)


def _check_target(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that could not be written, before an hour of load and not after it."""
    if path is not None and not os.access(path.parent, os.W_OK):
        message = f"nothing can be written to the folder {str(path.parent)!r}"
        raise click.BadParameter(message, ctx, param)
    if path is not None and param.name == "plot" and path.suffix != ".png":
        raise click.BadParameter(f"{str(path)!r} must end in .png", ctx, param)
    return path


_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


def report_options(function: F) -> F:
    """Add what commands that wait have in common."""
    for option in (
        click.option(
            "--plot",
            type=_FILE,
            callback=_check_target,
            metavar="FILE.png",
            help="Draw the times into a picture; needs matplotlib: pip install 'pgflows[plot]'.",
        ),
        click.option(
            "--json",
            "json_file",
            type=_FILE,
            callback=_check_target,
            metavar="FILE",
            help="Write the report as JSON.",
        ),
        click.option(
            "--timeout",
            type=seconds,
            default=3600.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait, once all are begun, before runs that go on count as lost.",
        ),
        click.option(
            "--interval",
            type=seconds,
            default=5.0,
            show_default=True,
            metavar="SECONDS",
            help="How often to tell how far it is.",
        ),
    ):
        function = option(function)
    return function


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,  # what is no command is an error of one line, as any other
)
def cli() -> None:
    """Put load on flows and measure what becomes of it.

    The worker side is `flows supervise examples.stress:registry`, or `work`.
    """


@cli.command()
@load_options
@click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    envvar="FLOWS_STRESS_BATCH",
    show_envvar=True,
    metavar="N",
    help="Runs begun in one transaction.",
)
@click.option("--reset", is_flag=True, help="Delete the runs of all earlier generations first.")
@click.option(
    "--no-wait", is_flag=True, help="Print the generation's id and end once all runs are begun."
)
@report_options
@database_options
def generate(
    *,
    dsn: str | None,
    schema: str,
    shards: int,
    batch_size: int,
    reset: bool,
    no_wait: bool,
    interval: float,
    timeout: float,
    json_file: Path | None,
    plot: Path | None,
    **load: Any,
) -> int:
    """Begin runs, wait until they are completed, and report how long they took.

    Exit code 1 if a run has failed, or is lost: not there any more, or not completed in time.
    """
    if no_wait and (json_file or plot):
        raise click.UsageError(
            "--no-wait ends before there is a report; leave out --json and --plot"
        )
    settings = Settings(shards, batch_size, loads_from(load))
    outlet = _Outlet(json_file, plot)
    config = DBConfig(schema=schema, shard_count=shards)
    with open_session(dsn, may_create=True) as session:
        session.make_ready(config)
        tables = GenerationTables(session.connection, config)
        tables.create()
        if reset:
            tell(f"deleted {tables.forget_all():,} runs of earlier generations")
        generation = uuid7()
        _begin(session, config, generation, settings, interval)
        if no_wait:
            write(f"{generation}\n")
            return ExitCode.OK
        return _report(tables, generation, schema, settings, timeout, interval, outlet)


@cli.command()
@click.argument("generation", type=click.UUID, required=False)
@report_options
@database_options
def report(
    *,
    generation: uuid.UUID | None,
    dsn: str | None,
    schema: str,
    shards: int,
    interval: float,
    timeout: float,
    json_file: Path | None,
    plot: Path | None,
) -> int:
    """Wait for runs begun before, and report: by default the latest generation's."""
    outlet = _Outlet(json_file, plot)
    config = DBConfig(schema=schema, shard_count=shards)
    with open_session(dsn) as session:
        session.make_ready(config)
        tables = GenerationTables(session.connection, config)
        tables.create()
        chosen = generation or tables.latest()
        noted = None if chosen is None else tables.settings(chosen)
        if chosen is None or noted is None:
            which = "no generation" if generation is None else f"no generation {generation}"
            raise click.UsageError(f"{which} in {session.place}; begin one: {PROGRAM} generate")
        settings = msgspec.json.decode(noted, type=Settings)
        return _report(tables, chosen, schema, settings, timeout, interval, outlet)


@cli.command()
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=DEFAULT_CONCURRENCY,
    show_default=True,
    envvar=CONCURRENCY_VARIABLE,
    show_envvar=True,
    metavar="N",
    help="Executor threads of each workflow.",
)
@database_options
def work(*, dsn: str | None, schema: str, shards: int, concurrency: int) -> None:
    """Execute runs in this process, until TERM or Ctrl-C: the worker side without a supervisor."""
    config = DBConfig(schema=schema, shard_count=shards)
    with open_session(dsn, may_create=True) as session:
        session.make_ready(config)
        worker = Worker(registry_for(concurrency), session.database.dsn, db_config=config)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: worker.stop())
        tell(f"working on {session.place}; TERM or Ctrl-C ends it")
        worker.run()


class _Outlet:
    """Where a report goes besides the terminal."""

    def __init__(self, json_file: Path | None, plot: Path | None) -> None:
        """Prepare to write; what a plot needs is loaded now, so that it fails before the load."""
        self._json_file = json_file
        self._plot = plot
        if plot is not None:
            self._draw = _load_plot()

    def write(self, made: Any) -> None:
        """Write the report to its files."""
        if self._json_file is not None:
            write_json(made, self._json_file)
        if self._plot is not None:
            self._draw(made, self._plot)


def _load_plot() -> Callable[..., None]:
    try:
        from .plot import draw  # noqa: PLC0415  matplotlib is optional, and slow to load
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"--plot needs matplotlib, and there is no module {error.name!r};"
            " run: pip install 'pgflows[plot]', or leave out --plot"
        ) from error
    return draw


def _begin(
    session: Session, config: DBConfig, generation: uuid.UUID, settings: Settings, interval: float
) -> None:
    total = sum(load.runs for load in settings.loads.values())
    tell(f"generation {generation}: {total:,} runs in {session.place}")
    GenerationTables(session.connection, config).note_generation(generation, settings)
    progress = Progress(tell, interval)
    for begun in begin(session.connection, config, generation, settings):
        progress.report(begun, total, "begun")
    tell(f"all are begun, in {progress.elapsed_s:.1f} s")


def _report(
    tables: GenerationTables,
    generation: uuid.UUID,
    schema: str,
    settings: Settings,
    timeout: float,
    interval: float,
    outlet: _Outlet,
) -> int:
    try:
        wait(tables, generation, Progress(tell, interval), timeout)
    except (KeyboardInterrupt, psycopg.Error):
        tell(f"the runs go on; to wait for them again: {PROGRAM} report {generation}")
        raise
    made = make_report(tables, generation, schema, settings)
    write(table(made))
    outlet.write(made)
    for complaint in complaints(made):
        tell(f"error: {complaint}")
    return ExitCode.OK if made.ok else ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
