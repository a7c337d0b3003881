"""SQLAlchemy's dialect compliance suite; test_sqlalchemy_suite.py runs it, and says how.

One class is told what SQLAlchemy cannot know: which cursors are those at the server.
"""

from __future__ import annotations

from typing import Any

from iokernel.sqlalchemy import driver
from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ServerSideCursorsTest as _ServerSideCursorsTest


class ServerSideCursorsTest(_ServerSideCursorsTest):
    def _is_server_side(self, cursor: Any) -> bool:
        return isinstance(cursor, driver.ServerCursor)
