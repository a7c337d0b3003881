"""Certificates of `iokernel serve`: several, keys with passwords, new ones."""

from __future__ import annotations

import pathlib
import signal
import ssl
import subprocess

import pytest
from kit.help import until
from kit.serve import ASGI_HELP, Served
from kit.servers import make_certificates

APP = (
    ASGI_HELP
    + """
import os

async def app(scope, receive, send):
    await answer(send, repr([n for n in os.environ if "PASSWORD" in n]).encode())
"""
)
PASSWORD = "s3cret, &?%/ of keys"


@pytest.fixture
def files(tmp_path: pathlib.Path) -> pathlib.Path:
    """server.{crt,key} for localhost, locked.key the same with a password, other.{crt,key}."""
    make_certificates(tmp_path)
    lock(tmp_path, PASSWORD)
    openssl(
        tmp_path,
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", "/CN=o", "-keyout", "other.key", "-out", "other.crt",
        "-addext", "subjectAltName=DNS:other.example",
    )  # fmt: skip
    return tmp_path


def openssl(directory: pathlib.Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)


def lock(directory: pathlib.Path, password: str) -> None:
    """locked.key of server.key."""
    (directory / "word").write_text(password + "\n")
    openssl(
        directory,
        "pkey", "-in", "server.key", "-aes256", "-passout", "file:word", "-out", "locked.key",
    )  # fmt: skip


def shown(served: Served, name: str) -> bytes:
    """The certificate that a client sees that asks for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with served.connect() as plain, context.wrap_socket(plain, server_hostname=name) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert s.recv(65536).startswith(b"HTTP/1.1 200")
        return s.getpeercert(binary_form=True) or b""


def of_file(path: pathlib.Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_a_certificate_is_chosen_by_the_clients_name(files: pathlib.Path) -> None:
    with Served(
        APP, "--ssl-certfile", f"{files}/server.crt", "--ssl-keyfile", f"{files}/locked.key",
        "--ssl-certfile", f"{files}/other.crt", "--ssl-keyfile", f"{files}/other.key",
        "--ssl-keyfile-password-file", f"{files}/word",
    ) as served:  # fmt: skip
        assert shown(served, "localhost") == of_file(files / "server.crt")
        assert shown(served, "other.example") == of_file(files / "other.crt")
        assert shown(served, "unknown.example") == of_file(files / "server.crt")
        assert "s3cret" not in served.log


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_password_in_the_environment(workers: str, files: pathlib.Path) -> None:
    tls = ("--ssl-certfile", f"{files}/server.crt", "--ssl-keyfile", f"{files}/locked.key")
    env = {"IOKERNEL_SSL_KEYFILE_PASSWORD": PASSWORD}
    with Served(APP, *tls, "--workers", workers, env=env) as served:
        context = ssl.create_default_context(cafile=str(files / "ca.crt"))
        with (
            served.connect() as plain,
            context.wrap_socket(plain, server_hostname="localhost") as s,
        ):
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = s.recv(65536)
        assert answer.endswith(b"\r\n\r\n[]")  # the application has no business with it


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("wrong s3cret", "cannot load the private key, in PEM and with this passphrase"),
        (None, "gone/word: No such file or directory"),
        ("", "must have one line"),
        ("two\nlines", "must have one line"),
    ],
)
def test_a_password_that_is_none(
    word: str | None, said: str, workers: str, files: pathlib.Path
) -> None:
    path = files / "gone" / "word" if word is None else files / "word"
    if word is not None:
        path.write_text(word)
    tls = ("--ssl-certfile", f"{files}/server.crt", "--ssl-keyfile", f"{files}/locked.key")
    options = ("--ssl-keyfile-password-file", str(path), "--workers", workers)
    served = Served(APP, *tls, *options)
    try:
        assert served.wait() == 1
        assert said in served.log
        assert "s3cret" not in served.log
    finally:
        served.close()


def test_a_key_with_a_password_that_nobody_gave(files: pathlib.Path) -> None:
    served = Served(
        APP, "--ssl-certfile", f"{files}/server.crt", "--ssl-keyfile", f"{files}/locked.key"
    )
    try:
        assert served.wait() == 1
        assert "without a passphrase" in served.log
    finally:
        served.close()


def test_new_workers_have_new_certificates_and_the_new_password(files: pathlib.Path) -> None:
    with Served(
        APP, "--ssl-certfile", f"{files}/server.crt", "--ssl-keyfile", f"{files}/locked.key",
        "--ssl-keyfile-password-file", f"{files}/word",
    ) as served:  # fmt: skip
        old = of_file(files / "server.crt")
        assert shown(served, "localhost") == old
        make_certificates(files)
        lock(files, "another one")
        served.signal(signal.SIGHUP)
        until(lambda: shown(served, "localhost") == of_file(files / "server.crt") != old)
