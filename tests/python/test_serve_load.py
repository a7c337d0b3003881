"""How `iokernel serve` finds an application, what it takes it for, and what its errors say."""

from __future__ import annotations

import functools
import os
import pathlib
import socket
import sys
from typing import Any

import pytest
from iokernel.serve.load import AppError, interface_of, load, read_env_file
from iokernel.serve.options import Options, parse
from iokernel.serve.sockets import BindError, bind_all, listener_url

MODULE = """
async def app(scope, receive, send): pass
def create(): return app
def takes(argument): return app
number = 7
class Holder:
    inner = app
"""


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"served_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import there_is_no_such_thing\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return name


def test_names_are_found(module: str) -> None:
    app = load(f"{module}:app")
    assert app.__name__ == "app"
    assert load(module) is app
    assert load(f"{module}:Holder.inner") is app
    assert load(f"{module}:create", factory=True) is app


@pytest.mark.parametrize(
    ("text", "factory", "said"),
    [
        ("{m}:ap", False, "has no 'ap'; it has app"),
        ("{m}:number", False, "is a int; an application is a callable: app(scope"),
        ("{m}:number", True, "with --factory it must be a function"),
        ("{m}:takes", True, "without arguments: missing a required argument"),
        ("{m}_gone:app", False, "there is no module '{m}_gone' in"),
        ("{m}.py:app", False, "perhaps you mean {m}"),
        ("some/{m}.py", False, "perhaps you mean some.{m}"),
        (":app", False, "is no name of a module"),
        ("json", False, "has no app and no application; name what to serve: json:NAME"),
    ],
)
def test_errors_say_what_is_wrong(module: str, text: str, factory: bool, said: str) -> None:
    with pytest.raises(AppError) as caught:
        load(text.format(m=module), factory=factory)
    assert said.format(m=module) in str(caught.value)


def test_an_import_that_fails_within_the_application_is_shown_as_it_is(module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_thing"):
        load(f"{module}_broken:app")


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class Asgi2:
    def __init__(self, scope: Any) -> None: ...


async def asgi_any(*args: Any) -> None: ...
def any_arguments(*args: Any) -> None: ...
def nothing() -> None: ...
def four(a: Any, b: Any, c: Any, d: Any) -> None: ...


def test_interfaces_are_told_apart() -> None:
    assert interface_of(AsgiObject(), "auto", "x") == "asgi"
    assert interface_of(asgi_any, "auto", "x") == "asgi"
    assert interface_of(functools.partial(asgi_any), "auto", "x") == "asgi"
    assert interface_of(WsgiObject(), "auto", "x") == "wsgi"
    assert interface_of(any_arguments, "wsgi", "x") == "wsgi"


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (any_arguments, "say --interface asgi or wsgi"),
        (nothing, "say --factory"),
        (Asgi2, "only ASGI 3 and WSGI"),
        (four, "neither app(scope, receive, send) of ASGI nor app(environ"),
    ],
)
def test_what_is_neither_is_refused(app: Any, said: str) -> None:
    with pytest.raises(AppError) as caught:
        interface_of(app, "auto", "x:app")
    assert said in str(caught.value)


def test_env_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text("# c\nexport IOKT_A=1 # one\nIOKT_B=' # two'\n\nIOKT_C=there\n")
    for name in ("IOKT_A", "IOKT_B"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("IOKT_C", "before")
    read_env_file(str(file))
    assert [os.environ[f"IOKT_{n}"] for n in "ABC"] == ["1", " # two", "before"]
    file.write_text("A=1\nwhat is this\n")
    with pytest.raises(AppError, match="line 2: must be NAME=VALUE"):
        read_env_file(str(file))


def test_the_environment_is_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert parse(["a:b"]).workers == 3
    for text in ("many", "-1"):
        monkeypatch.setenv("WEB_CONCURRENCY", text)
        assert parse(["a:b", "-w", "2"]).workers == 2
        with pytest.raises(SystemExit) as ended:
            parse(["a:b"])
        assert ended.value.code == 2
        assert f"WEB_CONCURRENCY must be a number of workers, 0 or more, not '{text}'" in (
            capsys.readouterr().err
        )


def test_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["a:b", "-w", "1", "--root-path", "/x/"]).root_path == "/x"
    for words, said in (
        (["a:b", "--workers", "-1"], "must be 0 or more"),
        (["a:b", "--workers", "x"], "invalid int value: 'x'"),
        (["a:b", "--health", "x"], "must be a path such as /healthz"),
        (["a:b", "--ssl-keyfile", "x"], "--ssl-keyfile needs --ssl-certfile"),
        (["a:b", "--ssl-certfile", "x,y"], "without a comma in its name"),
        (
            ["a:b", "--ssl-certfile", "x", "--ssl-certfile", "y", "--ssl-keyfile", "z"],
            "as often as --ssl-certfile",
        ),
        (["a:b", "--umask", "8"], "must be octal, such as 027"),
        (["a:b", "--timeout", "0.5"], "must be a second or more, or 0 for none"),
        (["a:b", "--timeout", "9", "-w", "0"], "--timeout needs a worker"),
        (["a:b", "--max-requests", "9", "-w", "0"], "--max-requests needs a worker"),
        (["a:b", "--max-requests-jitter", "9"], "needs --max-requests"),
        (["a:b", "--reload", "--workers", "0"], "--reload needs a worker"),
        (["a:b", "--bind", "1?x"], "options as key=value"),
        ([], "required: MODULE:APP"),
    ):
        with pytest.raises(SystemExit) as ended:
            parse(words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_addresses(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    bound = bind_all(Options("x", ["0", f"unix:{path}?idle=5s"], workers=2))
    try:
        tcp, unix = bound.addresses
        assert tcp.shown().startswith("127.0.0.1:")
        assert len(tcp.sockets) == 2  # one for each worker, of the same port
        assert len({s.getsockname() for s in tcp.sockets.values()}) == 1
        assert unix.of_slot(0) is unix.of_slot(1)
        assert bound.of_slot(1)[1].endswith("&idle=5s")
        with pytest.raises(BindError, match="cannot bind .*: Address already in use"):
            bind_all(Options("x", [tcp.shown()]))
        with pytest.raises(BindError, match="another server listens there"):
            bind_all(Options("x", [f"unix:{path}"]))
    finally:
        bound.close()
    assert not path.exists()


def test_a_socket_whose_server_died_is_replaced(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    bind_all(Options("x", [f"unix:{path}"])).close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("localhost:http", "a port is a number up to 65535"),
        ("host.invalid:80", "is no address here"),
        ("unix:", "a path must stand behind unix:"),
        ("fd://x", "a number must stand behind fd://"),
        ("fd://999999", "Bad file descriptor"),
    ],
)
def test_addresses_that_are_none(text: str, said: str) -> None:
    with pytest.raises(BindError) as caught:
        bind_all(Options("x", [text]))
    assert said in str(caught.value)


def test_a_descriptor_that_does_not_listen() -> None:
    with socket.socket() as s, pytest.raises(BindError, match="is no listening socket"):
        bind_all(Options("x", [f"fd://{s.fileno()}"]))


def test_what_the_listener_is_told() -> None:
    options = Options("x", health="/h", ssl_certfile=["/a b.pem", "/c.pem"])
    url = listener_url(7, "idle=5s", options)
    assert url == "https:?fd=7&tls_cert=/a%20b.pem,/c.pem&health=/h&idle=5s"
    options = Options("x", proxy_protocol=True, forwarded_allow_ips="10.0.0.0/8, unix:,::1")
    assert listener_url(7, "", options) == "http:?fd=7&proxy=yes&proxy_from=10.0.0.0/8,::1"
