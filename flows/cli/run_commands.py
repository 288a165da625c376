"""`flows runs cancel`, `retry` and `fork`: one run by its key, or many by a filter."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import debug_option, filter_options, location_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.cli.run_changes import Change, Changed
    from flows.cli.run_filter import RunFilter
    from flows.cli.session import Session
    from flows.config import DBConfig
    from flows.ids import RunKey

__all__ = ["cancel", "confirm", "fork", "retry"]

_keys = click.argument("keys", metavar="[KEY]...", nargs=-1)
_yes = click.option("--yes", is_flag=True, help="Do not ask, whatever the number of runs.")


@click.command(short_help="Cancel runs, by key or by filter.")
@_keys
@filter_options
@_yes
@location_options
@debug_option
def cancel(
    *, keys: tuple[str, ...], yes: bool, dsn: str | None, schema: str, **options: Any
) -> None:
    """Cancel the runs KEY, or all unfinished ones that the filter lets through.

    Those that are being executed are asked to end, and are not waited for.
    """
    from flows.cli.run_changes import CANCELLABLE, cancel_batch  # noqa: PLC0415

    _change("cancel", keys, options, (CANCELLABLE, CANCELLABLE), cancel_batch, yes, dsn, schema)


@click.command(short_help="Try failed or cancelled runs again, by key or by filter.")
@_keys
@filter_options
@_yes
@location_options
@debug_option
def retry(
    *, keys: tuple[str, ...], yes: bool, dsn: str | None, schema: str, **options: Any
) -> None:
    """Queue the runs KEY again, or all failed ones that the filter lets through.

    What they have done stays: only steps that have not completed are executed. Attempts, crashes
    and deadlines begin anew. Cancelled ones are chosen with --status cancelled.
    """
    from flows.cli.run_changes import RETRYABLE, retry_batch  # noqa: PLC0415

    _change("retry", keys, options, (RETRYABLE, RETRYABLE[:1]), retry_batch, yes, dsn, schema)


@click.command(short_help="Begin a run from a step of another one.")
@click.argument("key")
@click.option("--from-step", required=True, metavar="STEP", help="The first step to be executed.")
@location_options
@debug_option
def fork(*, key: str, from_step: str, dsn: str | None, schema: str) -> None:
    """Begin a new run with the input of the run KEY and what that had done before a step.

    Prints the key of the new run. The other one stays as it is.
    """
    from flows.cli.documents import check_text  # noqa: PLC0415  --help loads no database driver
    from flows.cli.output import write  # noqa: PLC0415
    from flows.cli.plain import printable  # noqa: PLC0415
    from flows.cli.run_changes import fork as fork_run  # noqa: PLC0415
    from flows.cli.run_keys import find_key, read_key  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig, why_no_key  # noqa: PLC0415
    from flows.errors import ConfigError  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    named = read_key(key)
    fault = why_no_key(check_text("the step", from_step))
    if fault is not None:
        raise ConfigError(f"a step's key {fault}")
    with open_session(dsn) as session:
        check_version(session.connection, config)
        run_key = find_key(session, config, named)
        made = fork_run(session.connection, config, run_key, from_step)
    write(f"{made.key}\n")
    steps = ", ".join(map(printable, made.steps)) or "none"
    click.echo(f"flows: steps that are not executed again: {steps}", err=True)


def _change(
    verb: str,
    keys: tuple[str, ...],
    options: dict[str, Any],
    statuses: tuple[Sequence[str], Sequence[str]],
    change: Change,
    is_sure: bool,  # noqa: FBT001  an option, passed on
    dsn: str | None,
    schema: str,
) -> None:
    from flows.cli.output import write  # noqa: PLC0415
    from flows.cli.run_filter import RunFilter  # noqa: PLC0415
    from flows.cli.run_keys import find_key, read_key  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.errors import ConfigError  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    chosen = RunFilter.of(**options)
    if bool(keys) is not chosen.is_empty:
        both = "not both" if keys else f"such as --workflow NAME; flows runs {verb} --help"
        raise ConfigError(f"give the keys of runs, or options that choose runs: {both}")
    named = [read_key(key) for key in keys]
    chosen = chosen.within(*statuses)
    with open_session(dsn) as session:
        check_version(session.connection, config)
        if named:
            # All before the first is changed: one that is not there changes none.
            run_keys = [find_key(session, config, each) for each in named]
            told = _change_named(session, config, verb, run_keys, change)
        else:
            told = _change_many(session, config, verb, chosen, change, is_sure)
    write(f"{told}\n")


def _change_named(
    session: Session, config: DBConfig, verb: str, keys: Sequence[RunKey], change: Change
) -> str:
    """Change runs one by one; the first that cannot be ends the command."""
    from flows.cli.output import Refusal  # noqa: PLC0415
    from flows.cli.run_changes import Changed  # noqa: PLC0415
    from flows.client import Client  # noqa: PLC0415

    total = Changed()
    for key in keys:
        changed = change(session.connection, config, key.workflow_name_shard, [key.run_id])
        if changed.left:
            # Raises where there is no such run.
            status = Client(db_config=config).get_run_status_tx(session.connection, key).status
            before = f"; before it: {_told(verb, total)}" if total.seen else ""
            raise Refusal(f"run {key} is {status}: it cannot be {_done(verb)}{before}")
        total += changed
    return _told(verb, total)


def _change_many(
    session: Session,
    config: DBConfig,
    verb: str,
    chosen: RunFilter,
    change: Change,
    is_sure: bool,  # noqa: FBT001  an option, passed on
) -> str:
    from flows.cli.interrupts import interruption  # noqa: PLC0415
    from flows.cli.progress import Progress  # noqa: PLC0415
    from flows.cli.run_changes import Changed, change_chosen  # noqa: PLC0415
    from flows.cli.run_list import count_runs, shards  # noqa: PLC0415

    connection = session.connection
    count = sum(
        count_runs(connection, config.schema, chosen, shard)
        for shard in shards(connection, config.schema, chosen)
    )
    if not count:
        return "no run is chosen"
    confirm(f"{verb} {count} run{'' if count == 1 else 's'}", is_sure=is_sure)
    total = Changed()
    is_over = False
    try:
        with interruption() as wanted, Progress(_done(verb), count) as progress:
            for changed in change_chosen(connection, config, chosen, change):
                total += changed
                progress.show(total.seen)
                if wanted:
                    break
            else:
                is_over = True
    finally:
        if not is_over:
            rest = "the others are as they were; the same command goes on with them"
            click.echo(f"flows: ended early: {_told(verb, total)} of {count}; {rest}", err=True)
    if not is_over:
        raise click.Abort
    return _told(verb, total)


def confirm(what: str, *, is_sure: bool) -> None:
    """Ask whether it may be done.

    Raises:
        Refusal: it may not, or nobody is there to be asked.
    """
    from flows.cli.output import Refusal  # noqa: PLC0415

    if is_sure:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise Refusal(f"this would {what}; give --yes")
    if not click.confirm(f"flows: {what}?", err=True):
        raise Refusal("nothing was changed")


def _told(verb: str, changed: Changed) -> str:
    asked = f", {changed.asked} being executed asked to end" if changed.asked else ""
    left = f", {changed.left} left as they have become" if changed.left else ""
    return f"{changed.done} {_done(verb)}{asked}{left}"


def _done(verb: str) -> str:
    return {"cancel": "cancelled", "retry": "queued again"}[verb]
