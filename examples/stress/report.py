"""What became of a generation: as a record, as a table, and in a line or two if it went wrong."""

from __future__ import annotations

import itertools
import json
import platform
import uuid
from collections.abc import Iterable
from pathlib import Path

import msgspec

from .load import PROGRAM, Settings
from .tables import Distribution, GenerationTables, Trouble

__all__ = [
    "Report",
    "Seconds",
    "WorkflowReport",
    "complaints",
    "make_report",
    "table",
    "write_json",
]

FRACTIONS = sorted(
    {index / 200 for index in range(201)} | {0.95, 0.99} | {1 - 10**-n / 2 for n in (2, 3, 4)}
)
"""Which quantiles are asked for: enough to draw the whole distribution without its runs."""

MAX_TROUBLES = 1000
_TOLD = 5


class Seconds(msgspec.Struct, frozen=True):
    """Seconds from the beginning of a run to its completion, over the completed runs."""

    min: float
    p50: float
    p95: float
    p99: float
    avg: float
    max: float


class WorkflowReport(msgspec.Struct, frozen=True):
    """What became of the runs of one workflow.

    Attributes:
        workflow: its name.
        begun: how many runs were begun.
        completed: how many are completed.
        failed: how many have failed.
        lost: how many are neither: not there, cancelled, or not completed in time.
        seconds: of the completed ones; None where none is.
    """

    workflow: str
    begun: int
    completed: int
    failed: int
    lost: int
    seconds: Seconds | None


class Report(msgspec.Struct, frozen=True):
    """What became of a generation.

    Attributes:
        generation: its id.
        schema: of the tables.
        settings: what was asked for.
        ok: whether every run is completed.
        elapsed_seconds: from the beginning of the generation to the last completion.
        completed_per_second: runs, over that time.
        python: version that the generator runs on.
        workflows: each of them.
        troubles: runs that are not completed, failed ones first, then those gone; at most 1,000.
        distributions: when the runs were completed, for the plot; not part of the JSON.
    """

    generation: uuid.UUID
    schema: str
    settings: Settings
    ok: bool
    elapsed_seconds: float
    completed_per_second: float
    python: str
    workflows: list[WorkflowReport]
    troubles: list[Trouble]
    distributions: dict[str, Distribution]


def make_report(
    tables: GenerationTables, generation: uuid.UUID, schema: str, settings: Settings
) -> Report:
    """Ask what has become of a generation by now, all of it as of one moment.

    Args:
        tables: where to ask.
        generation: of which.
        schema: of the tables.
        settings: what was asked for.
    """
    with tables.snapshot():
        counts = tables.count(generation)
        distributions = tables.distributions(generation, FRACTIONS)
        troubles = tables.troubles(generation, MAX_TROUBLES)
    workflows = [
        _workflow_report(workflow, statuses, distributions.get(workflow))
        for workflow, statuses in sorted(counts.items())
    ]
    completed = sum(each.completed for each in workflows)
    elapsed_s = max((each.completed_s[-1] for each in distributions.values()), default=0.0)
    return Report(
        generation,
        schema,
        settings,
        not troubles,
        round(elapsed_s, 6),
        round(completed / elapsed_s, 3) if elapsed_s else 0.0,
        platform.python_version(),
        workflows,
        troubles,
        distributions,
    )


def _workflow_report(
    workflow: str, statuses: dict[str, int], distribution: Distribution | None
) -> WorkflowReport:
    begun = sum(statuses.values())
    completed, failed = statuses.get("completed", 0), statuses.get("failed", 0)
    lost = begun - completed - failed
    seconds = None if distribution is None else _seconds(distribution)
    return WorkflowReport(workflow, begun, completed, failed, lost, seconds)


def _seconds(distribution: Distribution) -> Seconds:
    quantile = dict(zip(FRACTIONS, distribution.took_s, strict=True))
    values = [quantile[fraction] for fraction in (0.0, 0.5, 0.95, 0.99)]
    values += [distribution.average_s, quantile[1.0]]
    return Seconds(*(round(value, 6) for value in values))


_COLUMNS = ("workflow", "begun", "completed", "failed", "lost", *Seconds.__struct_fields__)


def table(report: Report) -> str:
    """Return the report as aligned text."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for each in report.workflows:
        counts = [f"{n:,}" for n in (each.begun, each.completed, each.failed, each.lost)]
        times = ["-"] * 6
        if each.seconds is not None:
            times = [f"{value:.3f}" for value in msgspec.structs.astuple(each.seconds)]
        rows.append((each.workflow, *counts, *times))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    completed = sum(each.completed for each in report.workflows)
    end = (
        f"{completed:,} runs completed in {report.elapsed_seconds:.1f} s,"
        f" {report.completed_per_second:,.1f} per second;"
        " times are in seconds from begun to completed"
    )
    return "\n".join([*lines, end]) + "\n"


def write_json(report: Report, path: Path) -> None:
    """Write the report as JSON."""
    record = msgspec.to_builtins(report)
    del record["distributions"]
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", "utf-8")


def complaints(report: Report) -> list[str]:
    """Return a line for the runs that have failed and one for those that are lost."""
    failed = sum(each.failed for each in report.workflows)
    lost = sum(each.lost for each in report.workflows)
    lines = []
    if failed:
        troubles = (each for each in report.troubles if each.status == "failed")
        which = _which(troubles, failed)
        lines.append(f"{_runs(failed)} failed: {which}; for the whole error: flows runs show KEY")
    if lost:
        troubles = (each for each in report.troubles if each.status != "failed")
        which = _which(troubles, lost)
        shards = report.settings.shards
        lines.append(
            f"{_runs(lost)} lost: {which}; if they wait, see that workers run on this database with"
            f" --schema {report.schema} --shards {shards}, and ask again:"
            f" {PROGRAM} report {report.generation}"
        )
    return lines


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"


def _which(troubles: Iterable[Trouble], count: int) -> str:
    first = itertools.islice(troubles, _TOLD)
    told = [f"{each.key} ({each.error or each.status})" for each in first]
    more = f" and {count - len(told):,} more" if count > len(told) else ""
    return ", ".join(told) + more
