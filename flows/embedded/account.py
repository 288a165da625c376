"""The user that the server runs as: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Account", "program_environment", "server_account"]

_STAND_INS_FOR_ROOT = ("postgres", "nobody")
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
_ELSEWHERE = "use a database of your own with --dsn or FLOWS_DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine that PostgreSQL's programs run as.

    Attributes:
        name: its login name.
        uid: its user id.
        gid: its first group.
        is_stand_in: True where we are root and the programs run as this user instead.
    """

    name: str
    uid: int
    gid: int
    is_stand_in: bool

    @property
    def identity(self) -> dict[str, Any]:
        """The arguments that make `subprocess` run a program as this user."""
        if not self.is_stand_in:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(
        self, command: Sequence[str | Path], input_text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end as this user, without looking at its exit status.

        Raises:
            EmbeddedError: it cannot be started at all.
        """
        try:
            return subprocess.run(  # noqa: S603  programs of PostgreSQL and of the system only
                [str(part) for part in command],
                input=input_text if input_text is not None else "",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd="/",  # the present folder may be closed to this user
                env=program_environment(),
                umask=0o077,
                check=False,
                **self.identity,
            )
        except OSError as error:
            raise EmbeddedError(f"cannot run {command[0]} as user {self.name}: {error}") from error

    def can_run(self, program: Path) -> bool:
        """Tell whether this user can run one of PostgreSQL's programs."""
        return self._tries('exec "$1" --version', program)

    def can_write(self, folder: Path) -> bool:
        """Tell whether this user can reach a folder and create files in it."""
        return self._tries('cd -- "$1" && test -w .', folder)

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this user can reach a folder."""
        return self._tries('cd -- "$1"', folder)

    def _tries(self, script: str, path: Path) -> bool:
        # Asked of the kernel as that user: mode bits alone know nothing of ACLs and mounts.
        return self.run(["/bin/sh", "-c", script, "sh", path]).returncode == 0


def server_account(data: Path) -> Account:
    """Return the user that the server of `data` runs as.

    It is the present user. Where that is root: the owner of `data` if it exists, else `postgres`,
    else `nobody`.

    Raises:
        EmbeddedError: there is no such user.
    """
    uid = os.geteuid()
    if uid != 0:
        return _account(uid, is_stand_in=False)
    if data.is_dir() and data.stat().st_uid != 0:
        return _account(data.stat().st_uid, is_stand_in=True)
    for name in _STAND_INS_FOR_ROOT:
        try:
            return _account(pwd.getpwnam(name).pw_uid, is_stand_in=True)
        except KeyError:
            continue
    raise EmbeddedError(
        "PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody' to"
        f" run it as; run flows as an ordinary user, or {_ELSEWHERE}"
    )


def _account(uid: int, *, is_stand_in: bool) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        # initdb says only "could not look up effective user ID"; usual in containers.
        raise EmbeddedError(
            f"user id {uid} has no entry in the system's list of users, which PostgreSQL needs;"
            f" add one to /etc/passwd, or {_ELSEWHERE}"
        ) from error
    return Account(entry.pw_name, uid, entry.pw_gid, is_stand_in)


def program_environment() -> dict[str, str]:
    """Return the environment for PostgreSQL's programs.

    Not ours: PG* variables would change what they do, and the secrets of an application are no
    business of a server that runs as another user.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C"}
