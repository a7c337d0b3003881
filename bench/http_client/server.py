"""A private nginx for one bench. Ours alone, so its CPU time is the bench's."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

START_SECONDS = 10.0
BODY = '{"id": 12345, "name": "the name of an item", "price": 12.5, "tags": ["a", "b", "c"]}'
SETTINGS = {"worker_processes": "1", "keepalive_requests": "1000000000", "access_log": "off"}
CONFIGURATION = """
daemon off;
pid nginx.pid;
error_log error.log;
worker_processes %(worker_processes)s;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
  access_log %(access_log)s;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests %(keepalive_requests)s;
  keepalive_timeout 600s;
  server {
    listen 127.0.0.1:%(port)d backlog=4096;
    default_type application/json;
    location / { return 200 '%(body)s'; }
  }
}
"""


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Runs from `with` to its end."""

    def __init__(self) -> None:
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise SystemExit("bench: nginx is not installed (Debian: apt-get install nginx-core)")
        self.program = program
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="iok-bench-")

    def __enter__(self) -> "Server":
        folder = Path(self.folder.name)
        place = {"port": self.port, "body": BODY.replace("\\", "\\\\").replace("'", "\\'")}
        (folder / "nginx.conf").write_text(CONFIGURATION % (SETTINGS | place))
        self.process = subprocess.Popen(
            [self.program, "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"]
        )
        self.pid = self.process.pid
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            time.sleep(0.02)
        self.stop()
        raise SystemExit("bench: nginx does not start")

    def stop(self) -> None:
        """End it and its workers."""
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def version(self) -> str:
        """Return the server's version."""
        told = subprocess.run([self.program, "-v"], capture_output=True, text=True).stderr
        return told.strip().rpartition("/")[2]
