"""Commands to a running supervisor: status, restart, scale, reload, drain, stacks."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  click looks at the annotations of nobody, but mypy does

import click

from flows.cli.control import ask, control_option, find
from flows.cli.options import debug_option

__all__ = ["drain", "reload", "restart", "scale", "stacks", "status"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@control_option
@debug_option
def status(*, as_json: bool, control: Path | None) -> None:
    """Show the processes of a running supervisor, and what is wrong with them."""
    import msgspec  # noqa: PLC0415  --help needs none of it

    from flows.cli.output import write  # noqa: PLC0415
    from flows.cli.status_page import print_status  # noqa: PLC0415
    from flows.supervisor.state import SupervisorState  # noqa: PLC0415

    answer = ask(find(control), {"do": "status"}, patient=False)
    if as_json:
        write(msgspec.json.format(msgspec.json.encode(answer["status"])).decode() + "\n")
    else:
        print_status(msgspec.convert(answer["status"], SupervisorState))


@click.command()
@click.argument("name")
@control_option
@debug_option
def restart(*, name: str, control: Path | None) -> None:
    """Replace the processes of workflow NAME, each when its replacement is ready.

    The ones before finish their runs, however long those take.
    """
    answer = ask(find(control), {"do": "restart", "name": name}, say=_note, patient=True)
    replaced, started = answer["replaced"], answer["started"]
    done = [f"{_processes(replaced)} replaced"] if replaced or not started else []
    done += [f"{started if done else _processes(started)} started"] if started else []
    _note(f"workflow {name}: {', '.join(done)}")


@click.command()
@click.argument("name")
@click.argument("count", type=click.IntRange(min=1))
@control_option
@debug_option
def scale(*, name: str, count: int, control: Path | None) -> None:
    """Have COUNT processes of workflow NAME, until the next reload."""
    ask(find(control), {"do": "scale", "name": name, "processes": count}, patient=False)
    _note(f"workflow {name}: {_processes(count)} from now on")


@click.command()
@control_option
@debug_option
def reload(*, control: Path | None) -> None:
    """Import the application again, and replace every worker when its replacement is ready.

    Where the new code does not boot, the old goes on, and the exit code is 1.
    """
    answer = ask(find(control), {"do": "reload"}, say=_note, patient=True)
    _note(f"reloaded: generation {answer['generation']}")


@click.command()
@control_option
@debug_option
def drain(*, control: Path | None) -> None:
    """Let what runs finish within the grace period, and end the supervisor; wait for that."""
    ask(find(control), {"do": "drain"}, say=_note, patient=True)
    _note("the supervisor has ended")


@click.command()
@click.argument("name", required=False)
@control_option
@debug_option
def stacks(*, name: str | None, control: Path | None) -> None:
    """Show where every thread is: of all processes, or of those of workflow NAME."""
    from flows.cli.output import write  # noqa: PLC0415  --help needs none of it

    request = {"do": "stacks", **({} if name is None else {"name": name})}
    answer = ask(find(control), request, patient=False)
    for process, lines in answer["stacks"].items():
        text = "\n".join(lines) or "  (no answer: it is stopped, or starts just now)"
        write(f"{process}\n{text}\n\n")


def _note(text: str) -> None:
    click.echo(f"flows: {text}", err=True)


def _processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"
