"""HAProxy and nginx in front of a server of ours, on free ports, with few connections to it that all clients share."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from typing import NamedTuple

from kit.help import PATIENCE_S, until
from kit.servers import free_port

HAPROXY = """
global
  log stdout format raw local0
  maxconn 3000
defaults
  mode http
  log global
  log-format "ANSWERED %HM %HU %ST %[capture.res.hdr(0)]"
  timeout connect 30s
  timeout client 60s
  timeout server 60s
  timeout queue 60s
  retries RETRIES
LAX
frontend brief
  bind 127.0.0.1:BRIEF
  capture response header x-seen len 8
  timeout client 1s
  timeout http-request 1s
  timeout http-keep-alive 1s
  default_backend ours
frontend plain
  bind 127.0.0.1:PLAIN
  capture response header x-seen len 8
  default_backend ours
backend ours
  http-reuse always
  RETRY_ON
  server ours 127.0.0.1:BACKEND maxconn CONNECTIONS
"""

NGINX = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 3000; }
http {
  log_format seen 'ANSWERED $request_method $request_uri $status $upstream_http_x_seen';
  access_log log seen;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_max_body_size 0;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_read_timeout 60s;
  proxy_next_upstream NEXT;
LAX
  upstream ours {
    server 127.0.0.1:BACKEND max_fails=0;
    keepalive CONNECTIONS;
    keepalive_timeout 1h;
  }
  server {
    listen 127.0.0.1:BRIEF;
    client_header_timeout 1s;
    client_body_timeout 1s;
    lingering_timeout 1s;
    keepalive_timeout 1s;
    location / { proxy_pass http://ours; }
  }
  server {
    listen 127.0.0.1:PLAIN;
    location / { proxy_pass http://ours; }
  }
}
"""

LAX = {
    "haproxy": "  option accept-invalid-http-request\n  option accept-invalid-http-response\n"
    "  option http-no-delay",
    "nginx": "  ignore_invalid_headers off;\n  underscores_in_headers on;\n  merge_slashes off;\n"
    "  proxy_request_buffering off;\n  proxy_buffering off;",
}


class Logged(NamedTuple):
    """A request as the front understood it, and whether our application's answer went to it."""

    method: str
    target: str
    status: int
    seen: bool


class Front:
    """One of them. `brief` is a port with short timeouts, for those who mean no good; `port` has long ones."""

    def __init__(
        self,
        kind: str,
        backend: int,
        *,
        lax: bool = False,
        connections: int = 1,
        repeats: bool = False,
    ) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"iok-{kind}-"))
        self.directory.chmod(0o755)
        self.kind = kind
        self.port, self.brief = free_port(), free_port()
        self._said = self.directory / "said"
        self._log = self._said if kind == "haproxy" else self.directory / "log"
        text = {"haproxy": HAPROXY, "nginx": NGINX}[kind]
        for name, value in {
            "LAX": LAX[kind] if lax else "",
            "BACKEND": str(backend),
            "CONNECTIONS": str(connections),
            "BRIEF": str(self.brief),
            "PLAIN": str(self.port),
            "RETRIES": "3" if repeats else "0",
            "RETRY_ON": "retry-on conn-failure empty-response" if repeats else "",
            "NEXT": "error" if repeats else "off",
        }.items():
            text = re.sub(rf"\b{name}\b", value, text)
        config = self.directory / "config"
        config.write_text(text)
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                ["haproxy", "-W", "-db", "-f", str(config)]
                if kind == "haproxy"
                else ["nginx", "-p", str(self.directory), "-c", "config", "-e", "error.log"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            until(self._listens, f"{kind} listening")
        except BaseException:
            self.close()
            raise

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.kind} ended: {self._said.read_text(errors='replace')}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False

    @property
    def url(self) -> str:
        """Of the port with long timeouts."""
        return f"http://127.0.0.1:{self.port}"

    def logged(self) -> list[Logged]:
        """All requests whose answers are over, or that were given up."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        found = re.findall(r"^ANSWERED (\S+) (.*) (-?\d+|-) (\S+)$", text, re.MULTILINE)
        return [Logged(m, t, int(s) if s != "-" else 0, seen == "yes") for m, t, s, seen in found]

    def lines(self) -> int:
        """How many those are."""
        return self._log.read_bytes().count(b"ANSWERED ") if self._log.exists() else 0

    def workers(self) -> set[int]:
        """Give the pids of its workers."""
        path = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    def reload(self) -> None:
        """Let new workers take the place of the old ones, which answer what they have."""
        old = self.workers()
        self.process.send_signal(signal.SIGUSR2 if self.kind == "haproxy" else signal.SIGHUP)
        until(lambda: self.workers() - old, f"a new worker of {self.kind}")

    def close(self) -> None:
        """End it, and its workers."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            for pid in self.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory)

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
