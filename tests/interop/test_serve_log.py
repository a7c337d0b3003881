"""What `iokernel serve` writes, whatever clients and applications do to it."""

from __future__ import annotations

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
