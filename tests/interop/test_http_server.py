"""The C server example behind real clients and real front ends: curl, wrk, h2load, nginx, HAProxy, Python's own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest
from kit.servers import free_port, make_certificates

HELLO = pathlib.Path(__file__).parents[2] / "build/c/examples/hello"


class Hello:
    """examples/hello.c, running."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen([HELLO, url], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "it did not start"
        self.port = 0 if "unix" in self.url else int(self.url.rsplit(":", 1)[1])

    def stop(self) -> None:
        """Ends it in good order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


@contextlib.contextmanager
def hello(url: str = "http://127.0.0.1:0") -> Iterator[Hello]:
    server = Hello(url)
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    path = pathlib.Path(tempfile.mkdtemp(prefix="iok-http-"))
    yield path
    shutil.rmtree(path)


def run(*args: str | os.PathLike[str]) -> str:
    done = subprocess.run(args, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def need(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, f"{program} is missing: apt-get install {program}"
    return found


def test_curl(directory: pathlib.Path) -> None:
    body = directory / "body"
    body.write_bytes(b"x" * 3_000_000)
    with hello() as server:
        assert (
            run("curl", "-sS", f"{server.url}/a?b", f"{server.url}/c") == "Hello, /a?b\nHello, /c\n"
        )
        assert run("curl", "-sS", "--http1.0", f"{server.url}/old") == "Hello, /old\n"
        assert "content-length: 13" in run("curl", "-sSI", f"{server.url}/head")
        # Larger than what the server takes before its answer: sent to its end all the same.
        for expect in ("100-continue", ""):
            up = ("-H", f"Expect: {expect}", "-T", body)
            assert run("curl", "-sS", *up, f"{server.url}/up") == "Hello, /up\n"


def test_unix_socket(directory: pathlib.Path) -> None:
    path = directory / "socket"
    with hello(f"http+unix://{path}?mode=0600"):
        assert run("curl", "-sS", "--unix-socket", path, "http://h/x") == "Hello, /x\n"
    assert not path.exists()


@pytest.mark.parametrize("tool", ["wrk", "h2load"])
def test_load_generators(tool: str) -> None:
    with hello() as server:
        if tool == "wrk":
            out = run(need("wrk"), "-t1", "-c32", "-d1", f"{server.url}/load")
            assert "requests in" in out
            assert "Socket errors" not in out
            assert "Non-2xx" not in out
        else:
            out = run(need("h2load"), "--h1", "-n2000", "-c16", "-m4", f"{server.url}/load")
            assert "2000 succeeded, 0 failed, 0 errored" in out


def test_tls_and_new_certificates(directory: pathlib.Path) -> None:
    make_certificates(directory)
    files = f"tls_cert={directory}/server.crt&tls_key={directory}/server.key"
    with hello(f"https://127.0.0.1:0?{files}") as server:
        url = f"https://localhost:{server.port}"
        trust = ("--cacert", directory / "ca.crt")
        assert (
            run("curl", "-sS", *trust, f"{url}/tls", f"{url}/again")
            == "Hello, /tls\nHello, /again\n"
        )
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        kept = http.client.HTTPSConnection("localhost", server.port, context=context)
        kept.request("GET", "/kept")
        assert kept.getresponse().read() == b"Hello, /kept\n"
        assert isinstance(kept.sock, ssl.SSLSocket)
        assert kept.sock.selected_alpn_protocol() == "http/1.1"
        old = kept.sock.getpeercert(binary_form=True)
        (directory / "server.crt").write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)  # refused: all stays as it was
        assert run("curl", "-sS", *trust, f"{url}/same") == "Hello, /same\n"
        make_certificates(directory)
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while subprocess.run(["curl", "-sS", *trust, url], capture_output=True).returncode != 0:
            assert time.monotonic() < deadline
        kept.request("GET", "/still")  # the connection from before goes on
        assert kept.getresponse().read() == b"Hello, /still\n"
        assert kept.sock.getpeercert(binary_form=True) == old
        kept.close()


def test_certificates_by_name_and_of_clients(directory: pathlib.Path) -> None:
    make_certificates(directory)
    extra = directory / "other"
    other = (
        "-keyout",
        f"{extra}.key",
        "-out",
        f"{extra}.crt",
        "-addext",
        "subjectAltName=DNS:other",
    )
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=o")
    run("openssl", "req", "-x509", *kind, *other)
    certs = (
        f"tls_cert={directory}/server.crt,{extra}.crt&tls_key={directory}/server.key,{extra}.key"
    )
    with hello(f"https://127.0.0.1:0?{certs}") as server:
        for name, trust in (("localhost", "ca.crt"), ("other", "other.crt")):
            url = f"https://{name}:{server.port}/{name}"
            resolve = f"{name}:{server.port}:127.0.0.1"
            found = run("curl", "-sS", "--cacert", directory / trust, "--resolve", resolve, url)
            assert found == f"Hello, /{name}\n"
    with hello(f"https://127.0.0.1:0?{certs}&tls_ca={directory}/ca.crt") as server:
        url = f"https://localhost:{server.port}/mutual"
        mine = ("--cert", directory / "client.crt", "--key", directory / "client.key")
        trusting = ("curl", "-sS", "--cacert", directory / "ca.crt")
        assert run(*trusting, *mine, url) == "Hello, /mutual\n"
        assert subprocess.run([*trusting, url], capture_output=True).returncode != 0


@contextlib.contextmanager
def front(args: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.closing(socket.socket()) as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_behind_a_front_end(kind: str, directory: pathlib.Path) -> None:
    port = free_port()
    with hello() as server:
        config = directory / "config"
        if kind == "nginx":
            config.write_text(
                f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/log;\n"
                "events {}\n"
                f"http {{ access_log off; client_body_temp_path {directory}; proxy_temp_path {directory};\n"
                f"fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};\n"
                f"upstream app {{ server 127.0.0.1:{server.port}; keepalive 8; }}\n"
                f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app;\n"
                'proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n'
            )
            args = [need("nginx"), "-c", str(config), "-e", str(directory / "log")]
        else:
            config.write_text(
                "defaults\n mode http\n timeout connect 5s\n timeout client 9s\n timeout server 9s\n"
                f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\n"
                f"backend b\n http-reuse always\n server s 127.0.0.1:{server.port}\n"
            )
            args = [need("haproxy"), "-db", "-f", str(config)]
        with front(args, port):

            def ask(number: int) -> bool:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                right = True
                for turn in range(20):
                    target = f"/{number}/{turn}"
                    body = b"x" * 1000 if turn % 3 == 0 else None
                    connection.request("POST" if body else "GET", target, body)
                    right = (
                        right and connection.getresponse().read() == f"Hello, {target}\n".encode()
                    )
                connection.close()
                return right

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                assert all(pool.map(ask, range(8)))
