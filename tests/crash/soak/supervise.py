"""`flows supervise` with leases of a few seconds and patience with processes that are killed.

The one so that a lost host is seen in a soak of minutes, the other because a soak kills more often
than any application crashes: the budget of restarts would declare its workflows broken.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from flows import leases

__all__ = ["LEASE"]

LEASE = timedelta(seconds=4)


def shorten_leases() -> None:
    """Have every lease of this process and its children last `LEASE`; before others read it."""
    leases.LEASE = LEASE
    leases.RENEW_INTERVAL = LEASE / 4
    for function in (leases.register_worker, leases.renew_worker, leases.renew_supervised):
        function.__defaults__ = (LEASE,)


def main() -> None:
    """Run the command line."""
    shorten_leases()
    from flows.cli import main as run_command  # noqa: PLC0415  reads the length of leases
    from flows.supervisor import supervise  # noqa: PLC0415
    from flows.supervisor.plan import Plan  # noqa: PLC0415
    from flows.supervisor.restart import RestartPolicy  # noqa: PLC0415

    patient = RestartPolicy(maximum_s=1.0, budget=1_000_000)
    vars(supervise)["Plan"] = partial(Plan, restart=patient)
    run_command()


if __name__ == "__main__":
    main()
