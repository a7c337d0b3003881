"""A private PostgreSQL for one bench, with pgbouncer and the delaying proxy in front of it.

Ours alone, so its CPU time is the bench's, and only its own processes are ever ended. It does not
sync, as its disk is not what is measured.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

START_SECONDS = 30.0
ROWS = 10_000
ACCOUNTS = 10_000
CONNECTIONS_MAX = 300  # 100 of a pool, and some
ROOT = Path(__file__).resolve().parents[2]
DELAY_PROXY = ROOT / "build" / "c" / "bench" / "delay"
# 0.5 ms each way: a round trip of 1 ms, as between two zones of a provider.
DELAY_US = 500
# The pooler's own connections: as many as iokernel has.
POOLER_CONNECTIONS = 4

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",  # it would run in some windows and not in others
    "shared_buffers": "128MB",
    "max_connections": str(CONNECTIONS_MAX),
    "max_wal_size": "4GB",
}
SCHEMA = f"""
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price float8 NOT NULL,
    stock bigint NOT NULL, created timestamptz NOT NULL);
INSERT INTO items SELECT i, 'the name of item ' || i, i * 1.25, i * 7,
    '2026-01-01'::timestamptz + i * interval '1 minute' FROM generate_series(1, {ROWS}) i;
CREATE UNLOGGED TABLE log (id bigint GENERATED ALWAYS AS IDENTITY, item int NOT NULL,
    note text NOT NULL);
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO accounts SELECT i, 0 FROM generate_series(0, {ACCOUNTS - 1}) i;
"""


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def programs() -> Path:
    """Return the folder of the newest server's programs; distributions keep them off PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise SystemExit("bench: PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


def unprivileged() -> str | None:
    """Return whom the servers run as, which refuse root; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise SystemExit("bench: we are root, and there is no user postgres or nobody for the server")


class Server:
    """Runs from `with` to its end. Who connects is let in as app, without a password."""

    def __init__(self) -> None:
        self.port = free_port()
        self.delayed_port = free_port()
        self.pooler_port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="iokernel-bench-"))
        self.user = unprivileged()
        self.pid = 0
        self.skipped: dict[str, str] = {}  # "delay" and "pgbouncer", if they cannot be had
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = open(self.folder / "log", "wb")
        if self.user is not None:
            shutil.chown(self.folder, self.user)

    def __enter__(self) -> "Server":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            user=self.user, cwd="/",
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"bench: {Path(command[0]).name} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def _launch(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
            user=self.user, cwd="/",
        )  # fmt: skip
        self._processes.append(process)
        return process

    def _start(self) -> None:
        data = str(self.folder / "data")
        self._run(
            str(programs() / "initdb"), "-D", data, "--no-sync", "-U", "app", "-A", "trust",
            "-E", "UTF8", "--locale=C",
        )  # fmt: skip
        words = [f"{name}={value}" for name, value in SETTINGS.items()]
        words += [f"port={self.port}", f"unix_socket_directories={self.folder}"]
        options = [word for setting in words for word in ("-c", setting)]
        process = self._launch(str(programs() / "postgres"), "-D", data, *options)
        self.pid = process.pid
        self._wait(process, self.port)
        self.sql("CREATE DATABASE app", database="postgres")
        self.sql(SCHEMA)
        self.sql("VACUUM ANALYZE")
        self._start_pooler()
        self._start_proxy()

    def _start_pooler(self) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if program is None:
            self.skipped["pgbouncer"] = "it is not installed (Debian: apt-get install pgbouncer)"
            return
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\napp = host={self.folder} port={self.port} user=app\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.pooler_port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
            f"default_pool_size = {POOLER_CONNECTIONS}\nmin_pool_size = {POOLER_CONNECTIONS}\n"
            f"max_client_conn = {CONNECTIONS_MAX}\nlog_connections = 0\nlog_disconnections = 0\n"
        )
        self._wait(self._launch(program, str(config)), self.pooler_port)

    def _start_proxy(self) -> None:
        if not DELAY_PROXY.exists():
            made = subprocess.run(["make", "-C", str(ROOT), "c"], capture_output=True)
            if made.returncode != 0 or not DELAY_PROXY.exists():
                self.skipped["delay"] = "`make c` did not build the delaying proxy"
                return
        ports = (str(self.delayed_port), str(self.port))
        self._wait(self._launch(str(DELAY_PROXY), *ports, str(DELAY_US)), self.delayed_port)

    def _wait(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Wait until it lets us in."""
        deadline = time.monotonic() + START_SECONDS
        startup = b"\0\3\0\0user\0app\0database\0app\0\0"
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
                    link.sendall((4 + len(startup)).to_bytes(4, "big") + startup)
                    if link.recv(1) in (b"R", b"E"):  # E: the database is not made yet
                        return
            time.sleep(0.02)
        log = (self.folder / "log").read_text(errors="replace")
        raise SystemExit(f"bench: {process.args!r} did not start:\n{log[-2000:]}")

    def sql(self, text: str, *, database: str = "app") -> str:
        """Run statements by psql."""
        return self._run(
            str(programs() / "psql"), "-h", str(self.folder), "-p", str(self.port), "-U", "app",
            "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, database,
        ).strip()  # fmt: skip

    def version(self) -> str:
        """Return the server's own version."""
        return self.sql("SHOW server_version")

    def pooler_version(self) -> str:
        """Return pgbouncer's."""
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        if not Path(program).exists():
            return "none"
        return self._run(program, "--version").partition("\n")[0]

    def stop(self) -> None:
        """End all processes, the last first, and remove the folder. Idempotent."""
        for process in reversed(self._processes):
            if process.stdin is not None:
                process.stdin.close()
            process.terminate() if process.pid != self.pid else process.send_signal(2)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
