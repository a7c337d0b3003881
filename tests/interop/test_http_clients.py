"""Clients that people have, against `iokernel serve`: connections that stay, bodies of all sizes both ways, many at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pathlib
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import httpx
import pytest
import requests
import urllib3
from kit.help import PATIENCE_S
from kit.serve import ASGI_HELP, Served

APP = (
    ASGI_HELP
    + """
import hashlib

PATTERN = bytes(range(251))
connections = set()

def pattern(size):
    return (PATTERN * (size // 251 + 1))[:size]

async def app(scope, receive, send):
    assert scope["type"] == "http"
    connections.add(scope["client"][1])
    path = scope["path"]
    try:
        body = await read_all(receive)
    except ConnectionError:
        return
    if path == "/connections":
        await answer(send, str(len(connections)).encode())
        connections.clear()
    elif path.startswith("/size/"):
        await answer(send, pattern(int(path[6:])), headers=[(b"x-method", scope["method"].encode())])
    elif path == "/none":
        await answer(send, status=204)
    else:
        told = {
            "method": scope["method"],
            "version": scope["http_version"],
            "length": len(body),
            "sum": hashlib.sha256(body).hexdigest(),
            "headers": [n.decode() for n, _ in scope["headers"]],
        }
        await answer(send, json.dumps(told).encode())
"""
)
SIZES = [0, 1, 1000, 65535, 65536, 65537, 1_000_000, 10_000_000]


def pattern(size: int) -> bytes:
    """The same as in the application."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def sum_of(data: bytes) -> str:
    """As the application gives it."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(APP, "--workers", "0") as served:
        yield served


def connections(served: Served) -> int:
    """How many connections asked since the last time, but for this one."""
    return int(served.get("/connections").body) - 1


@pytest.fixture
def directory() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="iok-clients-") as path:
        yield pathlib.Path(path)


def run(*command: str) -> bytes:
    """Run a program to its end, which must be a good one; what it printed."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S * 3
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


# ---- curl ---------------------------------------------------------------------------------------


def curl(*args: str) -> bytes:
    return run("curl", "--silent", "--show-error", "--fail", *args)


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_downloads(served: Served, version: str) -> None:
    for size in SIZES:
        assert curl(version, f"{served.url}/size/{size}") == pattern(size)


@pytest.mark.parametrize("more", [(), ("-H", "Transfer-Encoding: chunked"), ("--http1.0",)])
def test_curl_uploads(served: Served, directory: pathlib.Path, more: tuple[str, ...]) -> None:
    for size in SIZES:
        body = pattern(size)
        (directory / "body").write_bytes(body)
        said = curl(*more, "--data-binary", f"@{directory / 'body'}", f"{served.url}/sum")
        told = json.loads(said)
        assert (told["length"], told["sum"]) == (size, sum_of(body))
        assert told["version"] == ("1.0" if more == ("--http1.0",) else "1.1")


def test_curl_asks_whether_to_go_on(served: Served, directory: pathlib.Path) -> None:
    (directory / "body").write_bytes(pattern(100_000))
    # Without the 100 curl would wait for a thousand seconds.
    told = json.loads(
        curl(
            *("-H", "Expect: 100-continue", "--expect100-timeout", "1000"),
            *("--data-binary", f"@{directory / 'body'}", f"{served.url}/sum"),
        )
    )
    assert told["sum"] == sum_of(pattern(100_000))
    assert "expect" in told["headers"]


def test_curl_keeps_a_connection(served: Served) -> None:
    connections(served)
    urls = [f"{served.url}/size/{n}" for n in range(50)]
    assert curl(*urls) == b"".join(pattern(n) for n in range(50))
    assert connections(served) == 1


def test_curl_without_body(served: Served) -> None:
    connections(served)
    said = curl("--head", f"{served.url}/size/70000", f"{served.url}/size/1", f"{served.url}/none")
    assert b"content-length: 70000\r\n" in said
    assert b"content-length: 1\r\n" in said
    assert said.count(b"x-method: HEAD") == 2
    assert b"204 No Content" in said
    assert connections(served) == 1


def test_curl_sends_a_form_with_files(served: Served, directory: pathlib.Path) -> None:
    (directory / "file").write_bytes(pattern(3_000_000))
    told = json.loads(curl("-F", f"a=@{directory / 'file'}", "-F", "b=c", f"{served.url}/sum"))
    assert told["method"] == "POST"
    assert told["length"] > 3_000_000


def test_curl_many_at_once(served: Served) -> None:
    said = curl("--parallel", "--parallel-max", "50", f"{served.url}/size/[10000-10200]")
    assert len(said) == sum(range(10000, 10201))


# ---- pipelining, by hand ------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    sizes = [n * 37 % 4000 for n in range(500)]
    asked = b"".join(b"GET /size/%d HTTP/1.1\r\nHost: h\r\n\r\n" % size for size in sizes)
    with served.connect() as s, s.makefile("rb") as answers:
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(s.sendall, asked)
            for size in sizes:
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                length = -1
                while (line := answers.readline()) != b"\r\n":
                    if line.startswith(b"content-length: "):
                        length = int(line[16:])
                assert length == size
                assert answers.read(size) == pattern(size)
            sent.result()


def test_a_request_in_single_octets(served: Served) -> None:
    with served.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in b"POST /sum HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc":
            s.sendall(bytes([octet]))
        got = b""
        while b"}" not in got:
            got += s.recv(65536)
    assert json.loads(got.partition(b"\r\n\r\n")[2])["sum"] == sum_of(b"abc")


# ---- load generators ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 20_000])
def test_wrk(served: Served, size: int) -> None:
    said = run("wrk", "-t2", "-c64", "-d2s", f"{served.url}/size/{size}").decode()
    assert "Socket errors" not in said
    assert "Non-2xx" not in said
    total = re.search(r"(\d+) requests in", said)
    assert total is not None and int(total[1]) > 64


@pytest.mark.parametrize("many", ["1", "8"])
def test_h2load(served: Served, many: str) -> None:
    said = run("h2load", "--h1", "-n3000", "-c50", "-m", many, f"{served.url}/size/3000").decode()
    assert "3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored" in said
    assert "status codes: 3000 2xx, 0 3xx, 0 4xx, 0 5xx" in said


def test_h2load_uploads(served: Served, directory: pathlib.Path) -> None:
    (directory / "body").write_bytes(pattern(50_000))
    body = str(directory / "body")
    said = run("h2load", "--h1", "-n1000", "-c20", "-d", body, f"{served.url}/sum").decode()
    assert "1000 succeeded, 0 failed, 0 errored" in said


# ---- Python's -----------------------------------------------------------------------------------


def test_requests(served: Served) -> None:
    connections(served)
    with requests.Session() as session:
        session.trust_env = False
        for size in SIZES:
            assert session.get(f"{served.url}/size/{size}").content == pattern(size)
            told = session.post(f"{served.url}/sum", data=pattern(size)).json()
            assert (told["length"], told["sum"]) == (size, sum_of(pattern(size)))
        parts = (pattern(1000) for _ in range(1000))
        told = session.put(f"{served.url}/sum", data=parts).json()
        assert (told["method"], told["sum"]) == ("PUT", sum_of(pattern(1000) * 1000))
        assert "transfer-encoding" in told["headers"]
        assert session.head(f"{served.url}/size/5").headers["content-length"] == "5"
        assert session.delete(f"{served.url}/none").status_code == 204
        with session.get(f"{served.url}/size/1000000", stream=True) as answer:
            assert b"".join(answer.iter_content(777)) == pattern(1_000_000)
    assert connections(served) == 1


def test_urllib3(served: Served) -> None:
    connections(served)
    with urllib3.PoolManager(maxsize=8, block=True, retries=False) as pool:

        def ask(n: int) -> None:
            body = pattern(n * 13)
            told = pool.request("POST", f"{served.url}/sum", body=body).json()
            assert told["sum"] == sum_of(body)
            assert pool.request("GET", f"{served.url}/size/{n}").data == pattern(n)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ask, range(500)))
    assert connections(served) <= 8


def test_httpx(served: Served) -> None:
    async def ask(client: httpx.AsyncClient, n: int) -> None:
        body = pattern(n * 101)
        told = (await client.post(f"{served.url}/sum", content=body)).json()
        assert told["sum"] == sum_of(body)
        assert (await client.get(f"{served.url}/size/{n}")).content == pattern(n)

    async def main() -> None:
        limits = httpx.Limits(
            max_connections=50, max_keepalive_connections=50, keepalive_expiry=None
        )
        async with httpx.AsyncClient(limits=limits, timeout=PATIENCE_S, trust_env=False) as client:
            await asyncio.gather(*(ask(client, n) for n in range(300)))
            async with client.stream("GET", f"{served.url}/size/10000000") as answer:
                whole = b"".join([part async for part in answer.aiter_bytes()])
            assert whole == pattern(10_000_000)

    connections(served)
    asyncio.run(main())
    assert connections(served) <= 50


def test_aiohttp(served: Served) -> None:
    async def ask(session: aiohttp.ClientSession, n: int) -> None:
        body = pattern(n * 101)
        async with session.post("/sum", data=body) as answer:
            assert (await answer.json(content_type=None))["sum"] == sum_of(body)
        async with session.get(f"/size/{n}") as answer:
            assert await answer.read() == pattern(n)

    async def parts() -> object:
        async def several():  # type: ignore[no-untyped-def]
            for n in range(100):
                yield pattern(n * 100)
                await asyncio.sleep(0)

        return several()

    async def main() -> None:
        limit = aiohttp.ClientTimeout(total=PATIENCE_S * 2)
        connector = aiohttp.TCPConnector(keepalive_timeout=1000)
        async with aiohttp.ClientSession(served.url, timeout=limit, connector=connector) as session:
            await asyncio.gather(*(ask(session, n) for n in range(1000)))
            async with session.put("/sum", data=await parts()) as answer:
                told = await answer.json(content_type=None)
            assert told["sum"] == sum_of(b"".join(pattern(n * 100) for n in range(100)))

    connections(served)
    asyncio.run(main())
    assert connections(served) <= 100  # aiohttp's own bound


# ---- Node's -------------------------------------------------------------------------------------

NODE = """
const http = require('http'), crypto = require('crypto'), base = process.argv[2];
const pattern = size => Buffer.from(Array.from({length: 251}, (_, i) => i)).toString('latin1')
  .repeat(size / 251 + 1).slice(0, size);
const sum = text => crypto.createHash('sha256').update(Buffer.from(text, 'latin1')).digest('hex');
const same = (a, b) => { if (a !== b) throw new Error(`${a} is not ${b}`); };

async function byFetch(n) {
  const body = pattern(n * 101);
  const told = await (await fetch(base + '/sum', {method: 'POST', body: Buffer.from(body, 'latin1')})).json();
  same(told.sum, sum(body));
  const got = Buffer.from(await (await fetch(`${base}/size/${n}`)).arrayBuffer()).toString('latin1');
  same(got, pattern(n));
}

function byAgent(agent, method, path, parts) {
  return new Promise((resolve, reject) => {
    const request = http.request(base + path, {agent, method}, answer => {
      const got = [];
      answer.on('data', part => got.push(part));
      answer.on('end', () => resolve(Buffer.concat(got).toString('latin1')));
      answer.on('error', reject);
    });
    request.on('error', reject);
    for (const part of parts) request.write(Buffer.from(part, 'latin1'));
    request.end();
  });
}

(async () => {
  await Promise.all(Array.from({length: 200}, (_, n) => byFetch(n)));
  const agent = new http.Agent({keepAlive: true, maxSockets: 5});
  await Promise.all(Array.from({length: 200}, async (_, n) => {
    const parts = [pattern(n), pattern(n * 50), 'end'];  // in chunks
    same(JSON.parse(await byAgent(agent, 'POST', '/sum', parts)).sum, sum(parts.join('')));
    same(await byAgent(agent, 'GET', `/size/${n * 100}`, []), pattern(n * 100));
    same(await byAgent(agent, 'HEAD', `/size/${n}`, []), '');
  }));
  agent.destroy();
  console.log('all the same');
})();
"""


def test_node(served: Served, directory: pathlib.Path) -> None:
    (directory / "client.js").write_text(NODE)
    assert run("node", str(directory / "client.js"), served.url) == b"all the same\n"
