"""What the kernel tells of processes that it has killed for want of memory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["OomKills"]

_OWN = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


class OomKills:
    """Tells whether a SIGKILL came from the kernel, by the count that the cgroup keeps.

    The supervisor and its children are in one cgroup, whose count of such kills grows before the
    process is gone. Where there is no cgroup that counts, it never tells.

    Attributes:
        file: where the count stands, None where there is none.
    """

    def __init__(self, own: Path = _OWN, mount: Path = _MOUNT) -> None:
        """Take note of what was killed before.

        Args:
            own: the file that names the cgroups of this process.
            mount: where cgroups are found.
        """
        self.file = _counting_file(own, mount)
        self._explained = self._count()

    def explain_one(self) -> bool:
        """Tell whether a process that has just died by SIGKILL was killed for want of memory."""
        if self._count() <= self._explained:
            return False
        self._explained += 1
        return True

    def _count(self) -> int:
        if self.file is None:
            return 0
        try:
            fields = dict(line.split() for line in self.file.read_text().splitlines())
        except OSError:
            # The cgroup was removed from under us: from here on it does not tell.
            return 0
        return int(fields.get("oom_kill", 0))


def _counting_file(own: Path, mount: Path) -> Path | None:
    """Return the file of version 2 of cgroups, or of version 1, whichever counts here."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    # In a container the mount shows its own cgroup as the root, whatever the path says.
    for line in lines:
        number, controllers, path = line.split(":", 2)
        for inside in (path.lstrip("/"), ""):
            if "memory" in controllers.split(","):
                file = mount / "memory" / inside / "memory.oom_control"
            elif number == "0":
                file = mount / inside / "memory.events"
            else:
                continue
            if file.is_file():
                return file
    return None
