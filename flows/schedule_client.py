"""What a client does with schedules, in the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from flows.run_client import RunClient

if TYPE_CHECKING:
    from typing import Unpack

    from flows.callers import Tx
    from flows.ids import RunKey
    from flows.registry import Workflow, WorkflowClass
    from flows.schedule_operations import ScheduleChoices
    from flows.schedules import Schedule

__all__ = ["ScheduleClient"]

InputT = TypeVar("InputT")


class ScheduleClient(RunClient):
    """Creates, pauses, resumes and deletes schedules, too."""

    @overload
    def schedule_tx(
        self,
        tx: Tx,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        schedule_id: str | None,
        schedule: Schedule,
        **choices: Unpack[ScheduleChoices],
    ) -> RunKey | None: ...
    @overload
    def schedule_tx(
        self,
        tx: Tx,
        workflow: str,
        input: Any,
        schedule_id: str | None,
        schedule: Schedule,
        **choices: Unpack[ScheduleChoices],
    ) -> RunKey | None: ...
    def schedule_tx(
        self,
        tx: Tx,
        workflow: Any,
        input: Any,  # noqa: A002
        schedule_id: str | None,
        schedule: Schedule,
        **choices: Unpack[ScheduleChoices],
    ) -> RunKey | None:
        """Create a schedule, or replace the one of that id; one that is paused fires again.

        A schedule whose rule and zone stay as they are keeps its next time, also when it is
        replaced at every deploy.

        Args:
            tx: the caller's transaction.
            workflow: a workflow's handle, object or name, as for `begin_tx`.
            input: what each run is given.
            schedule_id: its name; None for the workflow's.
            schedule: when runs begin: `every(timedelta)`, `parse_cron(text, timezone)`, or an
                object with `next` whose `str()` is the text of one of these.
            choices: `run_now`, begin a run at once, besides. `catch_up`: of ticks missed in a
                downtime, begin none ("skip"), the "latest" (the default), or "all", which are at
                most the `catch_up_limit` latest, 100 by default. `overlap`: with "skip", a tick
                begins nothing while the run before it is unfinished; "allow" is the default.
                `jitter`: each run is put off by a part of this timedelta, the same for the same
                tick.

        Returns:
            The key of the run of `run_now`, else None.

        Raises:
            ConfigError: an option cannot work, or the schedule's text cannot be read back.
            EncodeError: the codec cannot keep the input.
            PayloadSizeError: it is larger than `max_payload`.
            DecodeError: the input does not fit the workflow's annotation.
            SchemaError: the tables are missing.
        """
        operation = self._operations.schedule(workflow, input, schedule_id, schedule, **choices)
        return self._execute(tx, operation)

    def pause_schedule_tx(self, tx: Tx, schedule_id: str) -> None:
        """Begin no more runs for a schedule; those in progress go on.

        Raises:
            UnknownScheduleError: there is no such schedule.
        """
        self._execute(tx, self._operations.pause_schedule(schedule_id))

    def resume_schedule_tx(self, tx: Tx, schedule_id: str) -> None:
        """Fire a paused schedule again, from its next time on: what was paused is not missed.

        Raises:
            UnknownScheduleError: there is no such schedule.
            ConfigError: its stored rule cannot be read.
        """
        self._execute(tx, self._operations.resume_schedule(schedule_id))

    def delete_schedule_tx(self, tx: Tx, schedule_id: str) -> None:
        """Remove a schedule; runs in progress go on.

        Raises:
            UnknownScheduleError: there is no such schedule.
        """
        self._execute(tx, self._operations.delete_schedule(schedule_id))
