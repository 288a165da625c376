"""Processes: one per workflow, forked, watched and restarted.

    flows: supervisor app:registry      imports the app, forks, watches; no database connection
     ├─ flows: maintenance              leases, rescue, release of the runs of the dead, progress
     ├─ flows: worker render [1/2]      one process per workflow, or `processes=` of them
     ├─ flows: worker render [2/2]
     └─ flows: worker demo

The supervisor must survive whatever its children do, so it does little: one thread, one selector,
no connection, no work of the application. What needs the database happens in a child: `prepare`
before the start, `maintenance` and `worker` while it runs, `report` at the end.

    PREPARING ──prepared──▶ RUNNING ──signal or drained──▶ STOPPING ──workers gone──▶ REPORTING
        │                                                      │ (begun runs were drained) │
        └──refused, or a signal────────────────────▶ CLOSING ◀─┴───────────────────────────┘
                                                        └──maintenance gone──▶ the exit code

Modules, from the inside out: `exits` (exit codes), `restart` (pure policy), `signals`,
`messages`, `child` (what a forked process does first and last), `processes` (fork, watch, reap),
`fleet` (which processes there should be), `plan` and `arbiter` (the loop), then what runs in the
children: `preparation`, `working`, `maintenance`, `report`; and `supervise`, which puts them
together.
"""
