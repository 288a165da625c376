"""The three workflows of the census and how they hand over to each other."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from flows import (
    Context,
    JSONCodec,
    MsgspecCodec,
    OrjsonCodec,
    Registry,
    RetryPolicy,
    RunKey,
    RunRetryPolicy,
    TerminalError,
    exponential_backoff,
)

from . import tables
from .functions import FileMeasure, measure_file
from .report import CensusResult, report
from .similarity import Part, links, parts, spanning_forest
from .sources import CensusOrder, Listing, batches, list_sources

if TYPE_CHECKING:
    from flows.registry import Workflow

__all__ = ["CompareJob", "MeasureJob", "registry"]

logger = logging.getLogger(__name__)

registry = Registry()

MAX_LISTINGS = 10
"""How often a tree that keeps changing is listed before the census gives up."""

# A file on a network drive may be unreadable for a moment.
_READ_AGAIN = RetryPolicy(
    max_retries=2, backoff=exponential_backoff(timedelta(milliseconds=50), timedelta(seconds=1))
)
_RUN_AGAIN = RunRetryPolicy(
    max_attempts=3, backoff=exponential_backoff(timedelta(milliseconds=200), timedelta(seconds=30))
)


class MeasureJob(msgspec.Struct, frozen=True):
    """Files to measure: paths, for a payload is no place for thousands of source texts.

    Attributes:
        census: key of the census run, as text.
        root: the folder.
        paths: files below it.
        min_tokens: functions of fewer tokens get no fingerprint.
    """

    census: str
    root: str
    paths: list[str]
    min_tokens: int


class CompareJob(msgspec.Struct, frozen=True):
    """A part of the comparison.

    Attributes:
        census: key of the census run, as text.
        part: which pairs to look for.
        percent: from which similarity on.
    """

    census: str
    part: Part
    percent: int


class CompareCount(msgspec.Struct, frozen=True):
    """How many functions a `compare` run has read, and how many links it has written."""

    functions: int
    links: int


class StageEnd(msgspec.Struct, frozen=True):
    """Payload of the event that ends a stage: done, or why it never will be."""

    failure: str | None = None


@registry.workflow("census", codec=JSONCodec())
def census(wf: Context, order: CensusOrder) -> CensusResult:
    """Count a tree of Python files: list it, have it measured, have it compared, report."""
    order.check()
    listing = wait_until_quiet(wf, order)
    if not listing.files:
        raise TerminalError(f"no Python files under {listing.root}")
    key = str(wf.run_key)
    measure_jobs = [
        MeasureJob(key, listing.root, paths, order.min_tokens)
        for paths in batches(listing.files, order.batch_kilobytes * 1024)
    ]
    run_stage(wf, "measure", measure, measure_jobs)
    percent = order.similarity_percent
    sizes = tables.fingerprint_sizes(wf.tx, wf.run_id)
    compare_jobs = [
        CompareJob(key, part, percent) for part in parts(sizes, order.compare_parts, percent)
    ]
    run_stage(wf, "compare", compare, compare_jobs)

    def finish() -> CensusResult:
        result = report(wf.tx, wf.run_id, listing.root, order.top)
        tables.drop_fingerprints(wf.tx, wf.run_id)
        return result

    return wf.execute("report/v1", finish)


def wait_until_quiet(wf: Context, order: CensusOrder) -> Listing:
    """List the files once nobody has changed them for `quiet_seconds`, as a checkout would.

    Raises:
        TerminalError: they keep changing.
    """
    listing = wf.execute("list/v1/0", list_sources, order)
    for number in range(1, MAX_LISTINGS):
        before = listing.fingerprint
        wf.sleep(f"quiet/v1/{number}", timedelta(seconds=order.quiet_seconds))
        listing = wf.execute(f"list/v1/{number}", list_sources, order)
        if listing.fingerprint == before:
            return listing
        logger.info("%s has changed, waiting for it to be quiet", listing.root)
    raise TerminalError(f"{listing.root} changed at each of {MAX_LISTINGS} looks")


def run_stage(wf: Context, stage: str, workflow: Workflow[Any, Any], jobs: Sequence[Any]) -> None:
    """Begin one run per job, once, and suspend until the last of them has reported.

    The counter, the child runs and this run's wait are committed together when the wait
    suspends: a crash before that leaves none of them. A resumed attempt finds the step's memo
    and begins nothing.

    Raises:
        TerminalError: a task has failed for good.
    """

    def begin() -> None:
        tables.create_tables(wf.tx)
        tables.open_stage(wf.tx, wf.run_id, stage, len(jobs))
        wf.client.begin_many_tx(wf.tx, workflow, jobs)

    if jobs:
        wf.execute(f"begin/{stage}/v1", begin)
        end = wf.wait_for_event(f"wait/{stage}/v1", stage, StageEnd)
        if end.failure is not None:
            raise TerminalError(f"a {stage} run failed: {end.failure}")


def report_task(wf: Context, census: str, stage: str) -> None:
    """Cross a task of a stage off, in a step; who crosses off the last one wakes the census.

    There is no moment at which the census could miss the end. What the task wrote is committed
    before or with its crossing off, and the crossing off with the event and this step's memo: a
    killed worker leaves all of it or none, and the next attempt does what is missing, once. Two
    runs that finish at the same time take turns at the counter's row: the second waits for the
    first to commit and sees what that left. (If each looked for unfinished tasks instead,
    neither would see that the other is finishing, and nobody would call.) And an event is
    kept for its run, so it may even come before the wait for it.
    """
    key = RunKey.parse(census)
    if tables.finish_task(wf.tx, key.run_id, stage) == 0:
        wf.client.publish_event_tx(wf.tx, key, stage, StageEnd())
        logger.info("%s: all tasks are done", stage)


@contextlib.contextmanager
def failure_reported(wf: Context, census: str, stage: str) -> Iterator[None]:
    """Have a task that fails for good fail its census, which would else wait for ever.

    What an attempt writes is committed with its failure: so is this event.
    """
    try:
        yield
    except Exception as error:
        if wf.attempt >= _RUN_AGAIN.max_attempts:
            end = StageEnd(f"{type(error).__name__}: {error}")
            wf.client.publish_event_tx(wf.tx, RunKey.parse(census), stage, end)
        raise


@registry.workflow(
    "measure",
    codec=MsgspecCodec(),
    processes=2,
    concurrency=2,
    commit="step",
    run_retry=_RUN_AGAIN,
)
def measure(wf: Context, job: MeasureJob) -> int:
    """Measure some files, one step each; returns the number of their functions.

    A step's rows are committed with its memo (`commit="step"`), so a killed worker repeats the
    file it was at and no other. The memo is only a count: the rows are in the tables already.
    """
    census_id = RunKey.parse(job.census).run_id

    def write(measured: FileMeasure) -> int:
        # The transaction is opened by its first use, here: none is open while a file is parsed.
        tables.insert_measure(wf.tx, census_id, measured)
        return len(measured.functions)

    def measure_path(path: str) -> int:
        return write(measure_file(job.root, path, job.min_tokens))

    functions = 0
    with failure_reported(wf, job.census, "measure"):
        for path in job.paths:
            try:
                functions += wf.execute(f"file/v1/{path}", measure_path, path, _READ_AGAIN)
            except OSError as error:
                # Removed since it was listed, or not readable by this user: part of the result.
                unreadable = FileMeasure(path, 0, [], type(error).__name__)
                functions += wf.execute(f"unreadable/v1/{path}", write, unreadable)
        wf.execute("report/v1", lambda: report_task(wf, job.census, "measure"))
    return functions


@registry.workflow("compare", codec=OrjsonCodec(), processes=2, run_retry=_RUN_AGAIN)
def compare(wf: Context, job: CompareJob) -> CompareCount:
    """Find the near-duplicates of one part."""
    census_id = RunKey.parse(job.census).run_id

    def compare_part(part: Part) -> CompareCount:
        fingerprints = tables.fingerprints(wf.tx, census_id, part)
        found = spanning_forest(links(fingerprints, part, job.percent))
        tables.insert_links(wf.tx, census_id, found)
        report_task(wf, job.census, "compare")
        return CompareCount(len(fingerprints), len(found))

    with failure_reported(wf, job.census, "compare"):
        return wf.execute("compare/v1", compare_part, job.part)
