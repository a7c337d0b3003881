"""Web servers for tests: one that sends what a test says, octet by octet, and real ones."""

from __future__ import annotations

import contextlib
import http.server
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable

from kit.servers import free_port, make_certificates


class Peer:
    """One accepted connection of a Script."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.connection = connection
        self.number = number
        self._file = connection.makefile("rb")

    def request(self, body: bool = True) -> bytes | None:
        """Read a request of known length, whole, or its head; None at the connection's end."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if line == b"":
                return None
            head += line
        length = 0
        for line in head.split(b"\r\n"):
            if body and line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + self._file.read(length)

    def chunks(self) -> bytes:
        """Read a body in chunks; what came of it, if it has no end."""
        whole = b""
        while (size := int(self._file.readline() or b"0", 16)) > 0:
            whole += self._file.read(size)
            self._file.readline()
        self._file.readline()
        return whole

    def rest(self) -> bytes:
        """Read to the connection's end."""
        return self._file.read()

    def end(self) -> None:
        """Send no more."""
        self.connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End it in both directions at once, as a broken network does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.connection.close()

    def has_more(self, seconds: float) -> bool:
        """Whether something comes within this time."""
        return bool(select.select([self.connection], [], [], seconds)[0])

    def close(self) -> None:
        """Close it, whatever was read."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self.connection.close()

    def send(self, data: bytes) -> None:
        """Send, if the other side still listens."""
        with contextlib.suppress(OSError):
            self.connection.sendall(data)


class Script:
    """A server that runs a function of the test for each connection, in a thread of its own."""

    def __init__(self, serve: Callable[[Peer], None], path: str | None = None) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._serve = serve
        self._open: set[socket.socket] = set()
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen()
            self.url = f"http+unix://{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            peer = Peer(connection, self.connections)
            threading.Thread(target=self._run, args=(peer,), daemon=True).start()

    def _run(self, peer: Peer) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._serve(peer)
        self._open.discard(peer.connection)
        peer.close()

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        answer = f"{self.command} {self.path} ".encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def log_message(self, *args: object) -> None:
        pass


class PythonServer:
    """Python's http.server: it answers with method, path and body; as HTTP/1.1 or HTTP/1.0."""

    def __init__(self, version: str = "HTTP/1.1") -> None:
        handler = type("Handler", (_Handler,), {"protocol_version": version})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> PythonServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


NODE = """
const http = require('http');
http.createServer((request, response) => {
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    response.writeHead(200, {'set-cookie': ['a=1', 'b=2']});
    if (request.method == 'HEAD') return response.end();
    response.write(request.method + ' ');
    response.write(request.url + ' ');
    for (const part of parts) response.write(part);
    response.addTrailers({'x-sum': '7'});
    response.end();
  });
}).on('upgrade', (request, socket, head) => {
  socket.write('HTTP/1.1 101 Switch\\r\\nconnection: upgrade\\r\\nupgrade: echo\\r\\n\\r\\n');
  socket.write(head);
  socket.pipe(socket);
}).listen({port: PORT, host: '127.0.0.1', allowHalfOpen: true});
"""

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {}
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 50;
  server {
    listen 127.0.0.1:PORT;
    listen 127.0.0.1:TLS ssl;
    listen unix:DIRECTORY/nginx.sock;
    ssl_certificate server.crt;
    ssl_certificate_key server.key;
    root files;
    location /gone { return 410 "gone"; }
    location /bare { return 204; }
    location /echo {
      proxy_pass BEHIND;
      proxy_http_version 1.1;
      proxy_set_header upgrade $http_upgrade;
      proxy_set_header connection upgrade;
    }
    location /gzip/ { alias files/; gzip on; gzip_types *; gzip_min_length 100; }
  }
}
"""


class _Program:
    """A server program of one's own; it is ended by its process id."""

    process: subprocess.Popen[bytes]

    def start(self, command: list[str], directory: pathlib.Path, port: int) -> None:
        """Start it, and wait until it listens."""
        self.directory = directory
        with (directory / "said").open("wb") as said:
            self.process = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.DEVNULL, stderr=said
            )
        for _ in range(2000):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return
            if self.process.poll() is not None:
                raise RuntimeError((directory / "said").read_text())
            time.sleep(0.01)
        raise RuntimeError(f"{command[0]} does not listen")

    def close(self) -> None:
        """Let it end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        shutil.rmtree(self.directory)

    def __exit__(self, *exc: object) -> None:
        self.close()


class NodeServer(_Program):
    """Node's http: chunked answers with a trailer and two cookies."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        directory = pathlib.Path(tempfile.mkdtemp(prefix="iok-node-"))
        (directory / "server.js").write_text(NODE.replace("PORT", str(port)))
        self.start(["node", "server.js"], directory, port)

    def __enter__(self) -> NodeServer:
        return self


class NginxServer(_Program):
    """nginx: files below `files`, over TCP, TLS and a unix socket."""

    def __init__(self, behind: str = "http://127.0.0.1:9") -> None:
        """Below /echo it passes on what comes, to the server behind."""
        directory = pathlib.Path(tempfile.mkdtemp(prefix="iok-nginx-"))
        port, tls = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.tls_url = f"https://localhost:{tls}?tls_ca={directory / 'ca.crt'}"
        self.unix_url = f"http+unix://{directory / 'nginx.sock'}"
        make_certificates(directory)
        directory.chmod(0o755)
        self.files = directory / "files"
        self.files.mkdir()
        config = NGINX.replace("PORT", str(port)).replace("TLS", str(tls))
        config = config.replace("BEHIND", behind)
        (directory / "nginx.conf").write_text(config.replace("DIRECTORY", str(directory)))
        self.start(
            ["nginx", "-p", str(directory), "-c", "nginx.conf", "-e", "error.log"], directory, port
        )

    def __enter__(self) -> NginxServer:
        return self
