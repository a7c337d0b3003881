"""Private servers on unix sockets in a temporary directory; asked without iokernel."""

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
from abc import ABC, abstractmethod
from collections.abc import Iterator
from urllib.parse import quote

NAME = "iokernel-demo"
COUNTER = "demo:counter"
START_S = 20.0
SOCKET_PATH_MAX = 100  # sun_path of unix(7) holds 108 bytes


class DemoError(Exception):
    """The demonstration cannot run, or showed something wrong."""


@contextlib.contextmanager
def private_directory() -> Iterator[str]:
    """Make a temporary directory, which stays if something went wrong."""
    place = None if len(tempfile.gettempdir()) < SOCKET_PATH_MAX - 50 else "/tmp"
    directory = tempfile.mkdtemp(prefix="iokernel-demo-", dir=place)
    try:
        yield directory
    except DemoError:
        print(f"the servers' files stay in {directory}")
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


class Server(ABC):
    """A server that runs from `with` to its end, but for when it is stopped in between."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = os.path.join(directory, name)
        self.user: str | None = None
        self.environment: dict[str, str] = {}  # added to ours
        self._process: subprocess.Popen[bytes] | None = None
        os.mkdir(self.directory)

    @property
    @abstractmethod
    def url(self) -> str:
        """What iokernel connects to."""

    @abstractmethod
    def command(self) -> list[str]:
        """Give the words that start it."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether it is ready."""

    @abstractmethod
    def connections(self) -> int:
        """Count the demonstration's connections, as the server does."""

    @abstractmethod
    def written(self) -> int:
        """Count what was written, as the server has it."""

    stop_signal = signal.SIGTERM

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user,
                cwd="/",
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C is for us; we stop it
            )
        end = time.monotonic() + START_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise DemoError(f"a server does not start: see {self.directory}/log")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it in good order; again is harmless."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(self.stop_signal)
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise DemoError("a server had to be killed") from None

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class RedisServer(Server):
    """A redis-server, or a valkey-server."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory, "redis")
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise DemoError("neither redis-server nor valkey-server is installed")
        self._program = program
        self._path = os.path.join(self.directory, "redis.sock")

    @property
    def url(self) -> str:
        """What iokernel connects to."""
        return f"redis+unix://{quote(self._path)}?client_name={NAME}"

    def command(self) -> list[str]:
        """Give the words that start it."""
        options = {
            "port": "0",
            "unixsocket": self._path,
            "dir": self.directory,
            "save": "3600 1",  # so it also saves when it is told to end
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [self._program, *words]

    def _ask(self, command: str) -> str:
        """Send one inline command; give the reply's text."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(START_S)
            link.connect(self._path)
            link.sendall(command.encode() + b"\r\n")
            with link.makefile("rb") as stream:
                head = stream.readline().decode().rstrip()
                if head.startswith("$"):
                    return stream.read(max(int(head[1:]), 0)).decode()
                if head.startswith(("+", ":")):
                    return head[1:]
                raise OSError(f"the server answered {head!r}")

    def answers(self) -> bool:
        """Tell whether it is ready."""
        with contextlib.suppress(OSError):
            return self._ask("PING") == "PONG"
        return False

    def connections(self) -> int:
        """Count the demonstration's connections, as the server does."""
        return sum(f" name={NAME} " in line for line in self._ask("CLIENT LIST").splitlines())

    def written(self) -> int:
        """Count what was written, as the server has it."""
        return int(self._ask(f"GET {COUNTER}") or 0)


def postgres_programs() -> pathlib.Path | None:
    """Find the directory of the newest PostgreSQL's programs; distributions keep them off PATH."""
    found = sorted(
        pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: float(path.parts[-3]),
    )
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return pathlib.Path(on_path).resolve().parent if on_path else None


class PostgresServer(Server):
    """A PostgreSQL. It refuses root, so for root it runs as another user."""

    stop_signal = signal.SIGINT  # without waiting for its clients

    def __init__(self, directory: str) -> None:
        super().__init__(directory, "postgresql")
        programs = postgres_programs()
        if programs is None:
            raise DemoError("PostgreSQL is not installed")
        self._programs = programs
        self._data = os.path.join(self.directory, "data")
        if os.geteuid() == 0:
            self.user = self._unprivileged()
            os.chmod(directory, 0o711)
            shutil.chown(self.directory, self.user)
        self._run(
            "initdb", "-D", self._data, "--no-sync", "-U", "demo", "-A", "trust", "-E", "UTF8"
        )
        self._made = False

    @staticmethod
    def _unprivileged() -> str:
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name).pw_name
        raise DemoError("we are root, and there is no user postgres or nobody for PostgreSQL")

    @property
    def url(self) -> str:
        """What iokernel connects to."""
        path = quote(os.path.join(self.directory, ".s.PGSQL.5432"))
        return f"postgresql+unix://demo@{path}?dbname=postgres&application_name={NAME}"

    def command(self) -> list[str]:
        """Give the words that start it."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": self.directory,
            "port": "5432",
            "fsync": "off",  # nobody needs the data after a power failure
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", self._data, *words]

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [str(self._programs / program), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=self.user,
            cwd="/",
        )
        if done.returncode != 0:
            raise DemoError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _ask(self, sql: str) -> str:
        where = ("-h", self.directory, "-p", "5432", "-U", "demo", "-d", "postgres")
        return self._run("psql", *where, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql).strip()

    def answers(self) -> bool:
        """Tell whether it is ready."""
        with contextlib.suppress(DemoError):
            return self._ask("SELECT 1") == "1"
        return False

    def start(self) -> None:
        """Start it; the first time, make its tables."""
        super().start()
        if not self._made:
            self._ask(
                "CREATE TABLE items AS SELECT i AS id, 'item ' || i AS name"
                " FROM generate_series(0, 9999) i; ALTER TABLE items ADD PRIMARY KEY (id);"
                " CREATE TABLE written (task int NOT NULL)"
            )
            self._made = True

    def connections(self) -> int:
        """Count the demonstration's connections, as the server does."""
        count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}'"
        return int(self._ask(count))

    def written(self) -> int:
        """Count what was written, as the server has it."""
        return int(self._ask("SELECT count(*) FROM written"))
