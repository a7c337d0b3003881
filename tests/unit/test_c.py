"""Each C test program is one case here, so that `make test` has one summary."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

TESTS = pathlib.Path(__file__).parent.parent
BUILD = pathlib.Path(os.environ.get("IOK_BUILD", TESTS.parent / "build/c"))
PROGRAMS = sorted(path.relative_to(TESTS) for path in TESTS.glob("*/test_*.c"))


@pytest.mark.parametrize("source", PROGRAMS, ids=[str(path.with_suffix("")) for path in PROGRAMS])
def test_program(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = BUILD / "tests" / source.stem
    assert program.exists(), f"{program} is not built: run `make c`"
    done = subprocess.run(
        [program],
        cwd=TESTS.parent,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=110,
    )
    assert done.returncode == 0, f"{source} ended with {done.returncode}:\n{done.stdout}"
