"""One server under test: started for one measurement, and ended by its process id."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

FOLDER = Path(__file__).resolve().parent
START_SECONDS, END_SECONDS = 20.0, 10.0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def processes(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def usage(pid: int) -> dict[str, float]:
    """Return CPU in ns, switches and resident bytes of a process and its descendants."""
    total = {"cpu_ns": 0.0, "switches_voluntary": 0.0, "switches_forced": 0.0, "rss": 0.0}
    names = {
        "voluntary_ctxt_switches": "switches_voluntary",
        "nonvoluntary_ctxt_switches": "switches_forced",
    }
    for process in processes(pid):
        try:
            total["rss"] += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
            for task in Path(f"/proc/{process}/task").iterdir():
                total["cpu_ns"] += int((task / "schedstat").read_text().split()[0])
                for line in (task / "status").read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name in names:
                        total[names[name]] += int(value)
        except OSError:
            continue  # it ended meanwhile
    return total


class Server:
    """A command that serves on a port."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        self._said = tempfile.TemporaryFile()
        environment = os.environ | {"PYTHONPATH": str(FOLDER)}
        self._process = subprocess.Popen(
            command, cwd=FOLDER, env=environment, stdin=subprocess.DEVNULL,
            stdout=self._said, stderr=self._said,
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> "Server":
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if s.recv(4096).startswith(b"HTTP/1.1 200"):
                        return self
            except OSError:
                pass
            time.sleep(0.02)
        self._end()
        self._said.seek(0)
        raise RuntimeError(f"it does not serve: {self._said.read().decode()[-500:]}")

    def _end(self) -> None:
        family = processes(self.pid)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"bench: {self.pid} had to be killed", file=sys.stderr)
            for pid in family:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._end()
        self._said.close()
