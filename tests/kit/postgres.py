"""A real PostgreSQL for tests: private, on a free port, ended by its own process id."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence

from kit.servers import free_port, make_certificates

PASSWORD = "s3cret pw"
REPLICATION = "local replication all trust"  # of `hba`: lets standbys in, over the socket


def _programs() -> pathlib.Path:
    """The directory of the newest server's programs; distributions keep them off PATH."""
    found = sorted(
        pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: float(path.parts[-3]),
    )
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path is None:
        raise RuntimeError("PostgreSQL's programs were not found; run tools/setup")
    return pathlib.Path(on_path).resolve().parent


def _server_user() -> str | None:
    """Whom the server runs as: it refuses root. None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("tests run as root, and there is no user postgres or nobody for the server")


class PostgresServer:
    """A postgres of one's own, on a free port of 127.0.0.1 and on a unix socket.

    The constructor starts it and waits until it answers. Ports, paths and data stay the same over
    stop, kill and start. The superuser is app, with PASSWORD, in the database app. `config` holds
    lines as in postgresql.conf; `hba` lines as in pg_hba.conf, before those that let app in by
    SCRAM over TCP and without a password over the socket.
    """

    def __init__(
        self, config: Iterable[str] = (), *, hba: Iterable[str] = (), tls: bool = False
    ) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="iok-pg-"))
        self.port = 0
        self._config = list(config)
        self._hba = list(hba)
        self._tls = tls
        self.user = _server_user()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._initialize()
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def socket(self) -> str:
        """The unix socket."""
        return str(self.directory / f".s.PGSQL.{self.port}")

    @property
    def url(self) -> str:
        """Over TCP."""
        return f"postgresql://app:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/app"

    @property
    def unix_url(self) -> str:
        """Over the unix socket, without a password."""
        return f"postgresql+unix://app@{self.socket}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        if self._process is None:
            raise RuntimeError("the postgres is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server wrote."""
        path = self.directory / "postgres.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _own(self, *paths: pathlib.Path) -> None:
        if self.user is not None:
            for path in paths:
                shutil.chown(path, self.user)

    def _program(self, *args: str) -> Sequence[str]:
        return [str(_programs() / args[0]), *args[1:]]

    def _initialize(self) -> None:
        if self._tls:
            make_certificates(self.directory)
            (self.directory / "server.key").chmod(0o600)
        password = self.directory / "password"
        password.write_text(PASSWORD + "\n")
        self._own(self.directory, *self.directory.iterdir())
        self.directory.chmod(0o755)  # the test, too, opens the socket and reads ca.crt
        where = ("-D", str(self.directory / "data"), "--no-sync", "--no-instructions")
        who = (
            "-U",
            "app",
            f"--pwfile={password}",
            "-E",
            "UTF8",
            "--locale=C",
            "-A",
            "scram-sha-256",
        )
        self._run("initdb", *where, *who)

    def _run(self, *args: str) -> None:
        done = subprocess.run(
            self._program(*args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=self.user,
            cwd="/",
        )
        if done.returncode != 0:
            raise RuntimeError(f"{args[0]} failed: {done.stderr or done.stdout}")

    def start(self) -> None:
        """Starts the server, with the port that it had before."""
        deadline = time.monotonic() + 60
        for _ in range(5):
            first_start = self.port == 0
            if first_start:
                self.port = free_port()
            before = len(self.log)
            if self._launch():
                if first_start:
                    self._populate()
                return
            # After a kill its children hold its memory until they see that it is gone.
            while "shared memory block" in self.log[before:] and time.monotonic() < deadline:
                time.sleep(0.05)
                before = len(self.log)
                if self._launch():
                    return
            # Somebody else took the port since free_port. A later start cannot choose another one.
            if not first_start or "in use" not in self.log:
                break
            self.port = 0
        raise RuntimeError(f"postgres did not start:\n{self.log}")

    def _populate(self) -> None:
        self.psql("CREATE DATABASE app", database="postgres")

    def _launch(self) -> bool:
        data = self.directory / "data"
        lines = [
            f"port = {self.port}",
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{self.directory}'",
            "fsync = off",
            "max_connections = 60",
            "shared_buffers = 16MB",
        ]
        if self._tls:
            lines += [
                "ssl = on",
                f"ssl_cert_file = '{self.directory / 'server.crt'}'",
                f"ssl_key_file = '{self.directory / 'server.key'}'",
                f"ssl_ca_file = '{self.directory / 'ca.crt'}'",
            ]
        (data / "postgresql.auto.conf").write_text("\n".join([*lines, *self._config]) + "\n")
        usual = ["local all all trust", "host all all 127.0.0.1/32 scram-sha-256"]
        (data / "pg_hba.conf").write_text("\n".join([*self._hba, *usual]) + "\n")
        with open(self.directory / "postgres.log", "ab") as log:
            self._process = subprocess.Popen(
                self._program("postgres", "-D", str(data)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user,
                cwd="/",
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def _answers(self) -> bool:
        """Does it let us in over the socket?"""
        pairs = b"user\0app\0database\0postgres\0\0"
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
            s.settimeout(5)
            try:
                s.connect(self.socket)
                s.sendall((8 + len(pairs)).to_bytes(4, "big") + b"\0\3\0\0" + pairs)
                return s.recv(1) == b"R"
            except OSError:
                return False

    def stop(self) -> None:
        """Ends the server in good order, though not waiting for its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server at once; its children go when they see that it is gone."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stops and starts it."""
        self.stop()
        self.start()

    def psql(self, sql: str, *, database: str = "app") -> str:
        """What psql prints for a statement: rows as lines, columns separated by |."""
        done = subprocess.run(
            self._program(
                "psql", "-h", str(self.directory), "-p", str(self.port), "-U", "app", "-XAtq",
                "-v", "ON_ERROR_STOP=1", "-c", sql, database,
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"psql failed: {done.stderr}")
        return done.stdout.rstrip("\n")

    def close(self) -> None:
        """Ends the server and removes its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class PostgresStandby(PostgresServer):
    """A streaming standby of a server, with its data, users and passwords.

    The server needs `hba=[REPLICATION]`. Its `pg_stat_replication` has the standby by `name`.
    """

    def __init__(
        self, primary: PostgresServer, config: Iterable[str] = (), *, name: str = "standby"
    ) -> None:
        self._primary = primary
        connection = (
            f"host={primary.directory} port={primary.port} user=app application_name={name}"
        )
        super().__init__([*config, f"primary_conninfo = '{connection}'"], hba=[REPLICATION])

    def _initialize(self) -> None:
        self._own(self.directory)
        self.directory.chmod(0o755)
        where = ("-D", str(self.directory / "data"), "--no-sync", "-c", "fast")
        who = ("-h", str(self._primary.directory), "-p", str(self._primary.port), "-U", "app")
        self._run("pg_basebackup", *where, *who)
        signal_file = self.directory / "data" / "standby.signal"
        signal_file.touch()
        self._own(signal_file)

    def _populate(self) -> None:
        pass  # it has what its primary has

    def promote(self) -> None:
        """Makes it a primary; returns when it is one."""
        if self.psql("SELECT pg_promote()") != "t":
            raise RuntimeError(f"the standby was not promoted:\n{self.log}")
