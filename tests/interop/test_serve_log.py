"""What `iokernel serve` writes, whatever clients and applications do to it."""

from __future__ import annotations

import json
import pathlib
import socket

import pytest
from kit.help import until
from kit.serve import ASGI_HELP, Served

FAILS_ASGI = """
async def app(scope, receive, send):
    raise ValueError("\\x1b[2J of " + scope["path"])
"""
FAILS_WSGI = """
def app(environ, start_response):
    raise ValueError("\\x1b[2J of " + environ["PATH_INFO"])
"""


@pytest.mark.parametrize("source", [FAILS_ASGI, FAILS_WSGI], ids=["asgi", "wsgi"])
def test_a_path_writes_no_lines_of_its_own(source: str) -> None:
    with Served(source, "--access-log") as served:
        assert served.get("/a%0A12:00:00.000%20info%20%1b%5B2J").status == 500
        until(lambda: "ValueError" in served.log)
        assert "\x1b" not in served.log
        assert "\\x1b[2J of /a" in served.log
        (line,) = [at for at in served.log.splitlines() if "the application failed" in at]
        assert "GET /a" in line
        assert "12:00:00.000" in line


CONFIGURES = """
import logging.config

def configure():
    logging.config.dictConfig({"version": 1})  # and disables what it does not name
"""
CONFIGURES_ASGI = (
    ASGI_HELP
    + CONFIGURES
    + """
%s
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        %s
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/fail":
        raise ValueError("no")
    else:
        await answer(send)
"""
)
CONFIGURES_WSGI = (
    CONFIGURES
    + """
configure()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("no")
    start_response("200 OK", [])
    return []
"""
)


@pytest.mark.parametrize(
    "source",
    [CONFIGURES_ASGI % ("configure()", ""), CONFIGURES_ASGI % ("", "configure()"), CONFIGURES_WSGI],
    ids=["asgi", "lifespan", "wsgi"],
)
@pytest.mark.parametrize("with_access", [True, False])
def test_an_application_that_configures_logging_does_not_silence_the_server(
    source: str, with_access: bool
) -> None:
    with Served(source, *["--access-log"] * with_access) as served:
        assert served.get("/seen").status == 200
        assert served.get("/fail").status == 500
        until(lambda: "the application failed" in served.log)
        assert ("GET /seen" in served.log) is with_access


PLAIN = """
async def app(scope, receive, send):
    await answer(send)
"""
BIND = "unix:socket"  # as nothing says on which port it serves
CONFIG = {
    "version": 1,
    "formatters": {"short": {"format": "%(name)s:%(levelname)s:%(message)s"}},
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": "lines", "formatter": "short"}
    },
    "loggers": {
        "iokernel.serve": {"handlers": ["file"], "level": "INFO"},
        "iokernel.access": {"handlers": ["file"], "level": "INFO"},
    },
}
INI = """
[loggers]
keys=root,access
[handlers]
keys=file
[formatters]
keys=short
[logger_root]
handlers=
[logger_access]
qualname=iokernel.access
handlers=file
[handler_file]
class=FileHandler
args=("lines",)
formatter=short
[formatter_short]
format=%(name)s:%(levelname)s:%(message)s
"""


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "log.json").write_text(json.dumps(CONFIG).replace('"lines"', f'"{tmp_path}/lines"'))
    (tmp_path / "log.ini").write_text(INI.replace('"lines"', f'"{tmp_path}/lines"'))
    return tmp_path


@pytest.mark.parametrize("kind", ["json", "ini"])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_configuration_of_the_log(kind: str, workers: str, directory: pathlib.Path) -> None:
    config = ("--log-config", str(directory / f"log.{kind}"))
    served = Served(ASGI_HELP + PLAIN, "--access-log", *config, "--workers", workers, bind=BIND)
    try:
        lines = directory / "lines"
        until(lambda: lines.exists() and (kind == "ini" or "serv" in lines.read_text()))
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            until(lambda: s.connect_ex(str(served.directory / "socket")) == 0)
            s.sendall(b"GET /seen HTTP/1.1\r\nHost: x\r\n\r\n")
            assert s.recv(65536).startswith(b"HTTP/1.1 200")
        until(lambda: 'iokernel.access:INFO:- "GET /seen HTTP/1.1" 200' in lines.read_text())
        assert "/seen" not in served.log
        if kind == "json":
            assert "iokernel.serve:INFO:" in lines.read_text()
            assert served.log == ""
    finally:
        assert served.close() == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("gone.json", None, "No such file or directory"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", "{}", "dictionary doesn't specify a version"),
        (
            "a.json",
            '{"version": 1, "handlers": {"a": {"class": "no.Such"}}}',
            "No module named 'no'",
        ),
        ("a.ini", "[nothing]", "KeyError: 'formatters'"),
    ],
)
def test_a_configuration_that_is_none(
    name: str, text: str | None, said: str, tmp_path: pathlib.Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    served = Served(ASGI_HELP + PLAIN, "--log-config", str(tmp_path / name))
    try:
        assert served.wait() == 1
        assert f"iokernel serve: --log-config {tmp_path / name}: " in served.log
        assert said in served.log
        assert "Traceback" not in served.log
    finally:
        served.close()
