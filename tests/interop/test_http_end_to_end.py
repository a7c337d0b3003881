"""FastAPI on `iokernel serve` behind HAProxy under wrk, with new workers and a killed one: what each of them says agrees."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import struct
import subprocess
import time

from kit.fronts import Front
from kit.help import until
from kit.serve import Served

APP = """
import mmap
import os

from fastapi import FastAPI, Response

app = FastAPI()
with open(f"count-{os.getpid()}", "w+b") as file:
    file.write(bytes(8))
    file.flush()
    count = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")  # stays when this process is killed


@app.get("/items/{number}")
async def item(number: int, response: Response, q: str = "") -> dict[str, object]:
    count[0] += 1
    response.headers["x-seen"] = "yes"
    return {"number": number, "q": q}
"""
CLIENTS = 32


def executed(directory: pathlib.Path) -> int:
    """Requests that the application has begun, in all workers that ever were."""
    return sum(struct.unpack("Q", path.read_bytes())[0] for path in directory.glob("count-*"))


def number_in(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found is not None else 0


def test_outcomes_add_up() -> None:
    with (
        Served(APP, "--workers", "2") as served,
        Front("haproxy", served.port, connections=CLIENTS) as front,
    ):
        assert served.get("/items/7?q=x").body == b'{"number":7,"q":"x"}'
        assert served.get("/items/none").status == 422
        direct = executed(served.directory)
        wrk = subprocess.Popen(
            ["wrk", "-t2", f"-c{CLIENTS}", "-d8s", "--timeout", "60s", f"{front.url}/items/7"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        killed = 0
        while wrk.poll() is None:
            before = front.lines()
            until(lambda before=before: wrk.poll() is not None or front.lines() > before + 500)  # type: ignore[misc]
            old = set(served.children())
            if killed:
                served.signal(signal.SIGHUP)
                gone = old
            else:
                gone = {old.pop()}
                os.kill(next(iter(gone)), signal.SIGKILL)
                killed += 1
            until(
                lambda gone=gone: len(served.children()) == 2 and not gone & set(served.children())
            )  # type: ignore[misc]
            time.sleep(0.2)
        said = wrk.communicate()[0]
        print(said)
        assert wrk.returncode == 0

        answers = number_in(r"(\d+) requests in", said)
        refused = number_in(r"Non-2xx or 3xx responses: (\d+)", said)
        broken = number_in(r"Socket errors: connect 0, read (\d+), write 0, timeout 0", said)
        assert ("Socket errors" in said) == (broken > 0), said

        def settled() -> bool:
            lines = front.lines()
            time.sleep(0.1)
            return lines == front.lines() >= answers

        until(settled, "the log of all requests")
        good = sum(line.status == 200 and line.seen for line in front.logged())
        ran = executed(served.directory) - direct
        print(f"{good} good, {refused} refused, {broken} broken off, {ran} executed")
        assert answers > 1000
        # What wrk got is what HAProxy passed on, but for what was under way when wrk ended.
        assert answers - refused <= good <= answers - refused + CLIENTS
        # Only what the killed worker had was lost: HAProxy says so, or closes the connection and does not log it.
        assert refused + broken <= CLIENTS * killed
        # Each good answer was one execution, each lost request at most one.
        assert good <= ran <= good + refused + broken + CLIENTS
