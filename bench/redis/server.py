"""A private redis-server for one bench: free port on loopback, a unix socket, nothing kept on disk.

It is ours alone, so its CPU time is the bench's, and only its own process is ever ended.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

START_SECONDS = 10.0


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def encode(*args: bytes) -> bytes:
    """Encode a command as a RESP array of bulk strings."""
    parts = [b"*%d\r\n" % len(args)]
    parts += [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]
    return b"".join(parts)


class Server:
    """Runs from `with` to its end."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="iokernel-bench-"))
        self.unix = self.folder / "redis.sock"
        program = shutil.which("redis-server")
        if program is None:
            raise SystemExit(
                "bench: redis-server is not installed (Debian: apt-get install redis-server)"
            )
        self._log = open(self.folder / "log", "wb")
        self._process = subprocess.Popen(
            [
                program, "--port", str(self.port), "--bind", "127.0.0.1",
                "--unixsocket", str(self.unix), "--save", "", "--appendonly", "no",
                "--dir", str(self.folder), "--maxclients", "4000",
            ],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> "Server":
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")
                raise SystemExit(f"bench: redis-server did not start:\n{log[-2000:]}")
            try:
                if self.ask(b"PING") == b"+PONG\r\n":
                    return
            except OSError:
                time.sleep(0.02)

    def ask(self, *args: bytes) -> bytes:
        """Send one command with a short reply on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS) as link:
            link.sendall(encode(*args))
            return link.recv(65536)

    def version(self) -> str:
        """Return the server's own version."""
        output = subprocess.run(
            [f"/proc/{self.pid}/exe", "--version"], capture_output=True, text=True
        ).stdout
        return next((word[2:] for word in output.split() if word.startswith("v=")), "unknown")

    def stop(self) -> None:
        """End the server and remove its folder. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
