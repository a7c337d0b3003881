"""A real pgbouncer for tests: private, in front of a PostgresServer, ended by its own process id."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable

from kit.postgres import PostgresServer
from kit.servers import free_port


class PgBouncer:
    """In transaction mode, with `size` connections to the server, on a free port of 127.0.0.1.

    Whoever comes is let in as app. `config` holds lines as in pgbouncer.ini.
    """

    def __init__(self, server: PostgresServer, size: int = 2, config: Iterable[str] = ()) -> None:
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise RuntimeError("pgbouncer was not found; run tools/setup")
        self.server = server
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="iok-pgb-"))
        self.port = free_port()
        self._lines = [
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {size}",
            *config,
        ]
        ini = self.directory / "pgbouncer.ini"
        self._write()
        if server.user is not None:  # it refuses root, as the server does
            shutil.chown(self.directory, server.user)
        with open(self.directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                [program, str(ini)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                user=server.user, cwd="/",
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Over TCP."""
        return f"postgresql://app@127.0.0.1:{self.port}/app?sslmode=disable"

    def _write(self) -> None:
        where = f"app = host={self.server.directory} port={self.server.port} user=app"
        lines = ["[databases]", where, *self._lines]
        (self.directory / "pgbouncer.ini").write_text("\n".join(lines) + "\n")

    def lead_to(self, server: PostgresServer) -> None:
        """From now on, or a moment later, to another server; clients stay connected."""
        self.server = server
        self._write()
        self._process.send_signal(signal.SIGHUP)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            time.sleep(0.02)
        raise RuntimeError(f"pgbouncer did not start:\n{(self.directory / 'log').read_text()}")

    def close(self) -> None:
        """Ends it and removes its directory."""
        self._process.send_signal(signal.SIGTERM)  # at once, clients or not
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
