"""`--reload`: children that watch the application's files, and tell when they have changed.

A reload may bring other files: then a second one watches them, and the first ends when that has
begun, so that no change is missed between the two.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import sysconfig
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from flows.errors import ConfigError
from flows.supervisor.exits import ExitCode
from flows.supervisor.happenings import describe_status
from flows.supervisor.messages import Changed, Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from flows.supervisor.child import ChildEnd, ChildMain
    from flows.supervisor.happenings import ChildProcess, Died
    from flows.supervisor.processes import Processes

__all__ = ["FileWatch", "check_installed", "is_source", "loaded_roots", "source_roots", "watcher"]

_DEBOUNCE_MS = 300
"""Changes that come so close to each other are one."""


def check_installed() -> None:
    """Refuse to watch without the library for it.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigError("--reload needs watchfiles: pip install 'pgflows[reload]'")


def source_roots(modules: Iterable[ModuleType]) -> tuple[str, ...]:
    """Return what to watch for an application: folders of its packages, files of its modules.

    Its own are those that are not installed, and not of flows or of Python.
    """
    paths = sysconfig.get_paths()
    foreign = {
        Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    foreign.add(Path(__file__).resolve().parent.parent)
    roots = set()
    for module in modules:
        file = getattr(module, "__file__", None)
        if not file or module.__name__.partition(".")[0] in {"flows", "__main__"}:
            continue
        path = Path(file).resolve()
        if path.suffix != ".py" or any(path.is_relative_to(each) for each in foreign):
            continue
        depth = module.__name__.count(".") + (path.name == "__init__.py")
        roots.add(str(path.parents[depth - 1] if depth else path))
    return tuple(sorted(roots))


def is_source(path: str, roots: tuple[str, ...]) -> bool:
    """Tell whether a file is one of these, or in one of these folders."""
    return any(path == root or path.startswith(f"{root}{os.sep}") for root in roots)


class FileWatch:
    """The watching children, as the supervisor has them: one, or two while one follows another."""

    def __init__(self, processes: Processes, say: Callable[[str], None]) -> None:
        """Watch nothing yet; `say` tells of an event."""
        self._processes = processes
        self._say = say
        self._roots: tuple[str, ...] | None = None
        self._children: list[ChildProcess] = []

    def owns(self, child: ChildProcess) -> bool:
        """Tell whether a process is one of these."""
        return child in self._children

    def follow(self, roots: tuple[str, ...]) -> None:
        """Watch these files and folders; what was watched before is, until these are."""
        if roots == self._roots:
            return
        try:
            self._children.append(self._processes.fork(watcher(roots), title="flows: watcher"))
        except OSError as error:
            self._say(f"the files are not watched: {error}")
        else:
            self._roots = roots

    def on_ready(self, child: ChildProcess) -> None:
        """A child watches: the ones before it are not needed any more."""
        assert self._roots is not None
        self._say(f"watching for changes: {', '.join(self._roots) or 'nothing'}")
        while self._children[0] is not child:
            self._children.pop(0).send_signal(signal.SIGTERM)

    def on_death(self, died: Died) -> None:
        """A child is gone that was to watch."""
        self._children.remove(died.child)
        if not self._children:
            # The next reload begins anew.
            self._roots = None
            self._say(f"nobody watches the files any more: it {describe_status(died.code)}")

    def stop(self) -> None:
        """End them all."""
        for child in self._children:
            child.send_signal(signal.SIGTERM)
        self._children.clear()


def watcher(roots: tuple[str, ...]) -> ChildMain:
    """Return the main function of a process that watches files, with their folders, and folders."""

    def main(end: ChildEnd) -> int:
        found: SimpleQueue[Ready | Changed | BaseException] = SimpleQueue()
        read_fd, write_fd = os.pipe()

        def tell(what: Ready | Changed | BaseException) -> None:
            found.put(what)
            os.write(write_fd, b"\0")

        threading.Thread(target=_watch, args=(roots, tell), daemon=True).start()
        end.watch(read_fd)
        while True:
            woken = end.wait()
            if woken.stop:
                return ExitCode.OK
            if read_fd in woken.readable:
                os.read(read_fd, 1)
                what = found.get()
                if isinstance(what, BaseException):
                    raise what
                end.channel.send(what)

    return main


class _Beginning:
    """What the watching asks again and again, once it has begun, whether it is to end."""

    def __init__(self, begun: Callable[[], None]) -> None:
        self._begun = begun
        self._has_begun = False

    def is_set(self) -> bool:
        """Return False: it ends with its process."""
        if not self._has_begun:
            self._has_begun = True
            self._begun()
        return False


def _watch(roots: tuple[str, ...], tell: Callable[[Ready | Changed | BaseException], None]) -> None:
    from watchfiles import PythonFilter, watch  # noqa: PLC0415  an optional dependency

    # A file that an editor replaces is another file: its folder is watched.
    folders = {root if Path(root).is_dir() else str(Path(root).parent) for root in roots}
    try:
        for changes in watch(
            *sorted(folders),
            watch_filter=PythonFilter(),
            debounce=_DEBOUNCE_MS,
            step=50,
            stop_event=_Beginning(lambda: tell(Ready())),
        ):
            tell(Changed(tuple(sorted(path for _, path in changes))))
    except BaseException as error:  # noqa: BLE001  raised again in the main thread
        tell(error)


def loaded_roots() -> tuple[str, ...]:
    """Return what to watch for the application that this process has imported."""
    return source_roots(list(sys.modules.values()))
