"""The command `flows`.

Each command lives in a module of its own, imported when it is used: `flows --help` loads none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from flows.cli.errors import run_rendered
from flows.cli.options import debug_option

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "Entry", "LazyGroup", "cli", "main"]


class Entry(NamedTuple):
    """Where a command is, and the line that the list of commands shows for it."""

    target: str
    summary: str


COMMANDS = {
    "supervise": Entry("flows.cli.supervise:supervise", "Run an app's workflows in processes."),
    "migrate": Entry("flows.cli.migrate:migrate", "Create the tables, or bring them up to date."),
    "begin": Entry("flows.cli.begin:begin", "Begin a run."),
    "publish": Entry("flows.cli.publish:publish", "Publish an event of a run."),
    "runs": Entry("flows.cli.runs:runs", "Look at runs; cancel, retry, fork them."),
    "stats": Entry("flows.cli.stats:stats", "Count runs by workflow and status."),
    "doctor": Entry("flows.cli.doctor:doctor", "Look for what is wrong with the database."),
    "prune": Entry("flows.cli.prune:prune", "Delete runs that ended long ago."),
    "replay": Entry("flows.cli.replay:replay", "Try an app's code on what a run has done."),
    "schedules": Entry("flows.cli.schedules:schedules", "Look at schedules; pause, resume them."),
    "status": Entry("flows.cli.operate:status", "Show the processes of a running supervisor."),
    "top": Entry("flows.cli.top:top", "Watch a running supervisor."),
    "restart": Entry("flows.cli.operate:restart", "Replace the processes of a workflow."),
    "scale": Entry("flows.cli.operate:scale", "Have more or fewer processes of a workflow."),
    "reload": Entry("flows.cli.operate:reload", "Have a supervisor run the app's new code."),
    "drain": Entry("flows.cli.operate:drain", "Let what runs finish, and end a supervisor."),
    "stacks": Entry("flows.cli.operate:stacks", "Show where the threads of processes are."),
    "db": Entry("flows.cli.db:db", "Start, stop and find the embedded database."),
}


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgflows", message="%(version)s")
@debug_option
def cli() -> None:
    """Run durable workflows on Postgres."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: errors become a line or two, and an exit code."""
    raise SystemExit(run_rendered(cli, arguments))
