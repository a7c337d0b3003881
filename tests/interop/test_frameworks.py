"""Frameworks as they are: forms, uploads, downloads, streams, background work, errors, sessions."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from kit.help import until
from kit.serve import Answer, Served

STARLETTE = """
import asyncio
import contextlib
import hashlib

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

done = []


async def hello(request):
    return PlainTextResponse(f"hello {request.query_params.get('name', 'world')} from {request.app.state.name}")


async def form(request):
    async with request.form() as fields:
        upload = fields.get("file")
        return JSONResponse({
            "name": fields["name"],
            "file": upload and [upload.filename, hashlib.sha256(await upload.read()).hexdigest()],
        })


async def upload(request):
    total = hashlib.sha256()
    async for part in request.stream():
        total.update(part)
    return PlainTextResponse(total.hexdigest())


async def download(request):
    return FileResponse("large.bin", filename="large.bin")


async def stream(request):
    async def parts():
        for n in range(100):
            yield f"part {n}\\n"
            if n % 10 == 0:
                await asyncio.sleep(0)
    return StreamingResponse(parts(), media_type="text/plain")


async def endless(request):
    async def parts():
        try:
            while True:
                yield b"x" * 10000
                await asyncio.sleep(0)
        finally:
            done.append("stopped")
    return StreamingResponse(parts())


async def background(request):
    async def work():
        await asyncio.sleep(0.01)
        done.append("worked")
    return PlainTextResponse("later", background=BackgroundTask(work))


def threaded(request):
    return PlainTextResponse("from a thread")


async def fails(request):
    raise LookupError("on purpose")


async def told(request):
    return JSONResponse(done)


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-stamp"] = "stamped"
        return response


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.name = "lifespan"
    yield
    open("ended", "w").close()


app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(GZipMiddleware, minimum_size=10000000)],
    routes=[
        Route("/", hello), Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]), Route("/download", download),
        Route("/stream", stream), Route("/endless", endless), Route("/background", background),
        Route("/threaded", threaded), Route("/fails", fails), Route("/told", told),
        Mount("/stamped", routes=[Route("/", hello), Route("/stream", stream)],
              middleware=[Middleware(Stamp)]),
    ],
)
"""

FASTAPI = """
import hashlib
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, File, Form, HTTPException, UploadFile
from pydantic import BaseModel

app = FastAPI()
done = []


class Item(BaseModel):
    name: str
    price: float


async def user(token: str = "nobody"):
    yield token
    done.append("closed")


@app.get("/")
async def hello(name: str = "world"):
    return {"hello": name}


@app.get("/sync/{number}")
def in_thread(number: int, who: Annotated[str, Depends(user)]):
    return {"number": number, "who": who}


@app.post("/items")
async def make(item: Item):
    return item


@app.post("/form")
async def form(name: Annotated[str, Form()], file: Annotated[UploadFile, File()]):
    content = await file.read()
    return {"name": name, "file": [file.filename, hashlib.sha256(content).hexdigest()]}


@app.get("/missing")
async def missing():
    raise HTTPException(404, "not here")


@app.get("/background")
async def background(tasks: BackgroundTasks):
    tasks.add_task(done.append, "worked")
    return "later"


@app.get("/told")
async def told():
    return done
"""

DJANGO = """
import hashlib
import sys

import django
from django.conf import settings
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    DEBUG=False, SECRET_KEY="x" * 60, ALLOWED_HOSTS=["*"], ROOT_URLCONF="app",
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    LOGGING_CONFIG=None,
)
django.setup()


def hello(request):
    return HttpResponse(f"hello {request.GET.get('name', 'world')}")


async def hello_async(request):
    return JsonResponse({"hello": "async", "scheme": request.scheme})


def form(request):
    upload = request.FILES["file"]
    digest = hashlib.sha256()
    for part in upload.chunks():
        digest.update(part)
    return JsonResponse({"name": request.POST["name"], "file": [upload.name, digest.hexdigest()]})


def upload(request):
    digest = hashlib.sha256()
    while part := request.read(65536):
        digest.update(part)
    return HttpResponse(digest.hexdigest())


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


def download(request):
    return FileResponse(open("large.bin", "rb"))


def stream(request):
    return StreamingHttpResponse(f"part {n}\\n" for n in range(100))


def fails(request):
    raise LookupError("on purpose")


urlpatterns = [
    path("", hello), path("async", hello_async), path("form", form), path("upload", upload),
    path("count", count), path("download", download), path("stream", stream), path("fails", fails),
]

if "asgi" in sys.argv:
    from django.core.asgi import get_asgi_application
    app = get_asgi_application()
else:
    from django.core.wsgi import get_wsgi_application
    app = get_wsgi_application()
"""

FLASK = """
import hashlib

from flask import Flask, Response, jsonify, request, send_file, session, stream_with_context

app = Flask(__name__)
app.secret_key = "secret"


@app.get("/")
def hello():
    return f"hello {request.args.get('name', 'world')}"


@app.post("/form")
def form():
    upload = request.files["file"]
    return jsonify(name=request.form["name"],
                   file=[upload.filename, hashlib.sha256(upload.read()).hexdigest()])


@app.post("/upload")
def upload():
    digest = hashlib.sha256()
    while part := request.stream.read(65536):
        digest.update(part)
    return digest.hexdigest()


@app.post("/json")
def as_json():
    return jsonify(got=request.get_json())


@app.get("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])


@app.get("/download")
def download():
    return send_file("large.bin")


@app.get("/stream")
def stream():
    @stream_with_context
    def parts():
        for n in range(100):
            yield f"part {n} {request.method}\\n".replace(" GET", "")
    return Response(parts(), mimetype="text/plain")


@app.get("/fails")
def fails():
    raise LookupError("on purpose")
"""

LARGE = 3_000_000
STREAMED = b"".join(b"part %d\n" % n for n in range(100))
SERVERS = {
    "starlette": (STARLETTE, ()),
    "starlette-uvloop": (STARLETTE, ("--loop", "uvloop")),
    "fastapi": (FASTAPI, ()),
    "django-asgi": (DJANGO, ("--interface", "asgi", "--lifespan", "off")),
    "django-wsgi": (DJANGO, ()),
    "flask": (FLASK, ()),
}


@pytest.fixture(scope="module", params=SERVERS)
def framework(request: pytest.FixtureRequest) -> Iterator[tuple[str, Served]]:
    source, options = SERVERS[request.param]
    with Served(source, *options) as served:
        (served.directory / "large.bin").write_bytes(bytes(range(250)) * (LARGE // 250))
        yield request.param.partition("-uvloop")[0], served


def multipart(name: str, file: bytes) -> tuple[bytes, dict[str, str]]:
    boundary = secrets.token_hex(8)
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode() + file
    body += f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def test_hello(framework: tuple[str, Served]) -> None:
    name, served = framework
    expected = {
        "starlette": b"hello caf\xc3\xa9 from lifespan",
        "fastapi": '{"hello":"café"}'.encode(),
    }
    client = served.client()
    for _ in range(50):
        client.request("GET", "/?name=caf%C3%A9")
        response = client.getresponse()
        assert response.status == 200
        assert response.read() == expected.get(name, "hello café".encode())
    client.close()
    assert served.get("/nowhere").status == 404


@pytest.mark.parametrize("size", [0, 10, 100_000, LARGE])
def test_upload_in_a_form(framework: tuple[str, Served], size: int) -> None:
    _, served = framework
    file = secrets.token_bytes(size)
    body, headers = multipart("Ada", file)
    answer = served.request("POST", "/form", body, headers)
    assert answer.status == 200, served.log
    assert json.loads(answer.body) == {
        "name": "Ada",
        "file": ["f.bin", hashlib.sha256(file).hexdigest()],
    }


def test_upload_without_length(framework: tuple[str, Served]) -> None:
    name, served = framework
    if name in ("fastapi", "django-asgi", "django-wsgi"):
        return  # Django reads no body without a length; FastAPI is Starlette
    parts = [secrets.token_bytes(70_000) for _ in range(20)]
    client = served.client()
    client.request(
        "POST",
        "/upload",
        iter(parts),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert client.getresponse().read().decode() == hashlib.sha256(b"".join(parts)).hexdigest()
    client.close()


def test_download(framework: tuple[str, Served]) -> None:
    name, served = framework
    if name == "fastapi":
        return
    answer = served.get("/download")
    assert answer.status == 200
    assert answer.headers["content-length"] == str(LARGE)
    assert (
        hashlib.sha256(answer.body).digest()
        == hashlib.sha256(bytes(range(250)) * (LARGE // 250)).digest()
    )


def test_stream(framework: tuple[str, Served]) -> None:
    name, served = framework
    if name == "fastapi":
        return
    answer = served.get("/stream")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == STREAMED


def test_failures(framework: tuple[str, Served]) -> None:
    name, served = framework
    if name == "fastapi":
        assert served.get("/missing").status == 404
        assert (
            served.request("POST", "/items", b"{}", {"Content-Type": "application/json"}).status
            == 422
        )
        return
    assert served.get("/fails").status == 500
    if name in ("starlette", "flask"):  # Django has its own log
        until(lambda: "LookupError: on purpose" in served.log)


def count(client: http.client.HTTPConnection, cookie: str) -> tuple[bytes, str]:
    client.request("GET", "/count", headers={"Cookie": cookie} if cookie else {})
    response = client.getresponse()
    return response.read(), (response.getheader("set-cookie") or "").partition(";")[0]


def test_sessions(framework: tuple[str, Served]) -> None:
    name, served = framework
    if name in ("starlette", "fastapi"):
        return
    client = served.client()
    first, cookie = count(client, "")
    second, cookie = count(client, cookie)
    assert (first, second) == (b"1", b"2")
    client.close()


def json_post(served: Served, target: str, value: object) -> Answer:
    headers = {"Content-Type": "application/json"}
    return served.request("POST", target, json.dumps(value).encode(), headers)


def test_what_each_has_alone(framework: tuple[str, Served]) -> None:
    name, served = framework
    if name == "fastapi":
        assert json.loads(served.get("/sync/7?token=ada").body) == {"number": 7, "who": "ada"}
        assert json_post(served, "/items", {"name": "x", "price": 1.5}).status == 200
        assert served.get("/openapi.json").status == 200
        assert served.get("/background").body == b'"later"'
        until(lambda: sorted(json.loads(served.get("/told").body)) == ["closed", "worked"])
    elif name == "flask":
        assert json.loads(json_post(served, "/json", [1, {"a": None}]).body) == {
            "got": [1, {"a": None}]
        }
    elif name.startswith("django"):
        assert json.loads(served.get("/async").body) == {"hello": "async", "scheme": "http"}
        form = urlencode({"name": "x"}).encode()
        assert served.request("POST", "/form", form).status in (400, 500)  # without a file
    else:
        assert served.get("/threaded").body == b"from a thread"
        assert served.get("/background").body == b"later"
        until(lambda: b"worked" in served.get("/told").body)
        stamped = served.get("/stamped/")
        assert (stamped.headers["x-stamp"], stamped.status) == ("stamped", 200)
        assert served.get("/stamped/stream").body == STREAMED


def test_a_client_that_leaves_a_stream(framework: tuple[str, Served]) -> None:
    name, served = framework
    if name != "starlette":
        return
    with served.connect() as s:
        s.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        assert s.recv(100000).startswith(b"HTTP/1.1 200")
    until(lambda: "stopped" in json.loads(served.get("/told").body))
