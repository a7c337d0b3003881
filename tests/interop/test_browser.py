"""A browser, headless Chromium, with `iokernel serve`: a page with forms, a large download, a WebSocket."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from kit.help import until
from kit.serve import ASGI_HELP, Served

PAGE = """<!doctype html>
<title>iokernel</title>
<link rel="stylesheet" href="/style">
<form id="plain" method="post" action="/form" target="one">
  <input name="name" value="J&uuml;rgen &amp; S&ouml;hne"><textarea name="text">a
b</textarea>
</form>
<form id="file" method="post" action="/upload" target="two" enctype="multipart/form-data">
  <input name="name" value="x"><input type="file" name="file">
</form>
<iframe name="one"></iframe><iframe name="two"></iframe>
<script>
const hex = bytes => Array.from(new Uint8Array(bytes), b => b.toString(16).padStart(2, '0')).join('');
const sum = async bytes => hex(await crypto.subtle.digest('SHA-256', bytes));

function submit(id, frame) {
  return new Promise(resolve => {
    const target = document.getElementsByName(frame)[0];
    target.onload = () => resolve(target.contentDocument.body.textContent);
    document.getElementById(id).submit();
  });
}

// Sends three messages and closes; the browser offers permessage-deflate by itself.
function echo() {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://${location.host}/echo`, ['other', 'echo']);
    const sent = ['h\u00e9llo', 'x'.repeat(1000000), new Uint8Array(300000).fill(9).buffer], got = [];
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => sent.forEach(message => socket.send(message));
    socket.onmessage = event => {
      const data = event.data;
      got.push(typeof data == 'string' ? data.slice(0, 5) + data.length : 'bytes' + data.byteLength);
      if (got.length == sent.length) socket.close(3001, 'enough');
    };
    socket.onerror = () => reject('the WebSocket failed');
    socket.onclose = event => resolve([socket.protocol, ...got, event.code, event.wasClean].join(' '));
  });
}

async function all() {
  const said = {};
  said.style = getComputedStyle(document.body).color;
  said.form = await submit('plain', 'one');
  const files = new DataTransfer();
  files.items.add(new File([new Uint8Array(3000000).fill(7)], 'seven'));
  document.querySelector('input[type=file]').files = files.files;
  said.upload = await submit('file', 'two');
  const download = await (await fetch('/large')).arrayBuffer();
  said.size = download.byteLength;
  said.sum = await sum(download);
  const many = await Promise.all(Array.from({length: 100}, (_, n) => fetch(`/number/${n}`).then(r => r.text())));
  said.many = many.join(' ');
  const reader = (await fetch('/drops')).body.getReader();
  let pieces = 0, read;
  while (!(read = await reader.read()).done) pieces += read.value.length;
  said.pieces = pieces;
  said.echo = await echo();
  return said;
}
all().catch(error => ({error: String(error)})).then(said =>
  fetch('/said', {method: 'POST', body: JSON.stringify(said)}));
</script>
"""

APP = (
    ASGI_HELP
    + f"""
import os

PAGE = {PAGE!r}
"""
    + """
LARGE = bytes(range(256)) * 200_000  # 51 MB

async def echo(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    assert scope["subprotocols"] == ["other", "echo"]
    await send({"type": "websocket.accept", "subprotocol": "echo"})
    while (message := await receive())["type"] == "websocket.receive":
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})
    with open("closed", "w") as file:
        file.write(f"{message['type']} {message['code']}")

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        return await echo(scope, receive, send)
    assert scope["type"] == "http"
    body = await read_all(receive)
    path = scope["path"]
    if path == "/":
        await answer(send, PAGE.encode(), headers=[(b"content-type", b"text/html; charset=utf-8")])
    elif path == "/style":
        css = b"body { color: rgb(1, 2, 3) }"
        await answer(send, css, headers=[(b"content-type", b"text/css")])
    elif path == "/form":
        assert (scope["method"], dict(scope["headers"])[b"content-type"]) == (
            "POST", b"application/x-www-form-urlencoded")
        await answer(send, body, headers=[(b"content-type", b"text/plain")])
    elif path == "/upload":
        assert dict(scope["headers"])[b"content-type"].startswith(b"multipart/form-data; boundary=")
        sevens = str(body.count(b"\\x07")).encode()
        await answer(send, sevens, headers=[(b"content-type", b"text/plain")])
    elif path == "/large":
        await answer(send, LARGE)
    elif path.startswith("/number/"):
        await answer(send, path[8:].encode())
    elif path == "/drops":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(20):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body"})
    elif path == "/said":
        with open("said.new", "wb") as file:
            file.write(body)
        os.rename("said.new", "page-said")
        await answer(send)
    else:
        await answer(send, status=404)
"""
)


def browser() -> str:
    """The program."""
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    raise AssertionError("no Chromium: install chromium-headless-shell, or chromium")


@contextmanager
def open_page(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Show it to nobody, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="iok-chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--no-proxy-server", "--remote-debugging-port=0", f"--user-data-dir={profile}", url,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it, and what it has started
            process.wait()


def test_a_page_with_forms_a_download_and_a_websocket() -> None:
    with Served(APP) as served, open_page(served.url + "/") as process:
        path = served.directory / "page-said"
        end = time.monotonic() + 90  # a browser's first start takes its time
        while not path.exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        until(path.exists, "what the page says")
        said = json.loads(path.read_text())
        closed = served.directory / "closed"
        until(lambda: closed.exists() and closed.read_text() == "websocket.disconnect 3001")
    assert said.pop("style") == "rgb(1, 2, 3)"
    form = parse_qs(said.pop("form"))
    assert form == {"name": ["Jürgen & Söhne"], "text": ["a\r\nb"]}
    large = bytes(range(256)) * 200_000
    assert said == {
        "upload": "3000000",
        "size": len(large),
        "sum": hashlib.sha256(large).hexdigest(),
        "many": " ".join(map(str, range(100))),
        "pieces": 20_000,
        "echo": "echo héllo5 xxxxx1000000 bytes300000 3001 true",
    }
