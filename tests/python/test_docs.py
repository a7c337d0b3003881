"""Examples in README.md and docs/ that stand behind `<!-- run -->` are run as they stand.

Each runs in a process of its own and must end with status 0. "redis://localhost" in its text is
replaced by the URL of a private server, which is in the environment as REDIS_URL, too; likewise
"postgresql+iokernel://localhost" by one of SQLAlchemy for an empty database. A comment
`# prints: text` (or `// prints: text`) in an example tells a line that it must print.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
from kit.postgres import PostgresServer
from kit.servers import RedisServer

ROOT = pathlib.Path(__file__).parent.parent.parent
BUILD = ROOT / "build/c/src"
SQLALCHEMY = "postgresql+iokernel://localhost"
EXAMPLE = re.compile(r"^<!-- run -->\n+```(python|c)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> list[object]:
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if page.exists():
            matches = EXAMPLE.findall(page.read_text("utf-8"))
            for number, (language, text) in enumerate(matches, 1):
                name = f"{page.relative_to(ROOT)}:{number}"
                found.append(pytest.param(language, text, id=name))
    return found


def compile_c(text: str, directory: pathlib.Path) -> pathlib.Path:
    """As a user would, against the public header and the shared library."""
    source = directory / "example.c"
    source.write_text(text)
    program = directory / "example"
    library = [f"-L{BUILD}", "-liokernel", f"-Wl,-rpath,{BUILD}"]
    command = ["cc", "-Wall", "-Werror", f"-I{ROOT / 'include'}", str(source), "-o", str(program)]
    done = subprocess.run([*command, *library], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def empty_database(server: PostgresServer) -> str:
    for sql in ("DROP DATABASE IF EXISTS docs WITH (FORCE)", "CREATE DATABASE docs"):
        server.psql(sql)
    return f"postgresql+iokernel://app@/docs?host={server.directory}&port={server.port}"


@pytest.mark.parametrize(("language", "text"), examples())
def test_example(
    language: str,
    text: str,
    shared_redis: RedisServer,
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
) -> None:
    shared_redis.cli("FLUSHALL")
    text = text.replace("redis://localhost", shared_redis.url)
    if SQLALCHEMY in text:
        server = request.getfixturevalue("shared_postgres")
        text = text.replace(SQLALCHEMY, empty_database(server))
    if language == "c":
        command = [str(compile_c(text, tmp_path))]
    else:
        script = tmp_path / "example.py"
        script.write_text(text)
        command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "REDIS_URL": shared_redis.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in re.findall(r"(?:#|//) prints: (.*)$", text, re.MULTILINE):
        assert line in done.stdout.splitlines()
