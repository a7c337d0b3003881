"""Real servers for tests: private, on a free port, ended by their own process id."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable


def free_port() -> int:
    """A TCP port on which nobody listens right now."""
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def make_certificates(directory: pathlib.Path) -> None:
    """ca.crt, and signed by it server.{crt,key}, client.{crt,key}; for localhost, 127.0.0.1."""

    def openssl(*args: str) -> None:
        done = subprocess.run(
            ["openssl", *args],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"openssl {args[0]} failed: {done.stderr}")

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-days", "2", "-subj", "/CN=private test authority")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", *authority)
    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        subject = ("-subj", f"/CN=test {name}")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", *subject)
        signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        names = ("-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.crt", *names)


class RedisServer:
    """A redis-server of one's own, on a free port of 127.0.0.1 and on a unix socket.

    The constructor starts it and waits until it answers. Ports and paths stay the same over stop,
    kill and start. `config` holds lines as in redis.conf, such as "requirepass secret".
    """

    def __init__(self, config: Iterable[str] = (), *, tls: bool = False) -> None:
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="iok-redis-"))
        self.socket = str(self.directory / "redis.sock")
        self.port = 0
        self.tls_port = 0
        self._config = list(config)
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if tls:
                make_certificates(self.directory)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Over TCP."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        """Over the unix socket."""
        return f"redis+unix://{self.socket}"

    @property
    def tls_url(self) -> str:
        """Over TLS; the client needs the file ca.crt of `directory` to trust it."""
        return f"rediss://localhost:{self.tls_port}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        if self._process is None:
            raise RuntimeError("the redis-server is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server wrote."""
        path = self.directory / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Starts the server, with the ports that it had before."""
        for _ in range(5):
            first_start = self.port == 0
            if first_start:
                self.port = free_port()
                self.tls_port = free_port() if self._tls else 0
            if self._launch():
                return
            # Somebody else took the port since free_port. A later start cannot choose another one.
            if not first_start or "in use" not in self.log:
                break
            self.port = 0
        raise RuntimeError(f"redis-server did not start:\n{self.log}")

    def _launch(self) -> bool:
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"unixsocket {self.socket}",
            f"dir {self.directory}",
            f"logfile {self.directory / 'redis.log'}",
            "daemonize no",
            'save ""',
            "appendonly no",
        ]
        if self._tls:
            lines += [
                f"tls-port {self.tls_port}",
                f"tls-cert-file {self.directory / 'server.crt'}",
                f"tls-key-file {self.directory / 'server.key'}",
                f"tls-ca-cert-file {self.directory / 'ca.crt'}",
                "tls-auth-clients optional",
            ]
        conf = self.directory / "redis.conf"
        conf.write_text("\n".join([*lines, *self._config]) + "\n")
        self._process = subprocess.Popen(
            ["redis-server", str(conf)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return True
            time.sleep(0.01)
        self.kill()
        return False

    def _answers(self) -> bool:
        """Does it speak RESP on the socket? An error, such as NOAUTH, is an answer as well."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
            s.settimeout(1)
            try:
                s.connect(self.socket)
                s.sendall(b"PING\r\n")
                reply = s.recv(64)
            except OSError:
                return False
        return reply[:1] in (b"+", b"-") and not reply.startswith(b"-LOADING")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Ends the server in good order; connections are closed by it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server at once."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)  # a paused one would not hear the first
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stops and starts it, with empty data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Suspends it: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends a pause."""
        self._signal(signal.SIGCONT)

    def cli(self, *args: str) -> str:
        """What redis-cli prints for a command, over the unix socket."""
        done = subprocess.run(
            ["redis-cli", "-s", self.socket, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        if done.returncode != 0:
            raise RuntimeError(f"redis-cli {args[0]} failed: {done.stderr or done.stdout}")
        return done.stdout.rstrip("\n")

    def close(self) -> None:
        """Ends the server and removes its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
