"""A process that is forked by one which is slow to go: prints who its parent was in the end.

Run as `python lingering.py`; prints the pid of the process that has adopted it, and its own parent.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

from flows.supervisor.child import Birth, ChildEnd, become_child
from flows.supervisor.messages import Channel
from flows.supervisor.processes import Processes
from flows.supervisor.signals import ALL_SIGNALS


def tell_parent(_: ChildEnd) -> int:
    sys.stdout.write(f"{supervisor_pid} {os.getppid()}\n")
    return 0


supervisor_pid = os.getpid()
# Adopts the orphans of its children.
processes = Processes()
ours, theirs = socket.socketpair()
signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
if os.fork() == 0:
    middle_pid = os.getpid()
    if os.fork() == 0:
        birth = Birth("lingering", Channel(theirs), supervisor_pid, middle_pid)
        become_child(tell_parent, birth, disown=ours.close)
    # As if the machine had no time for it.
    select.select([], [], [], 0.3)
    os._exit(0)
for _ in range(2):
    os.wait()
