"""Our HTTP reader takes the messages that llhttp and h11 take, but for what the documents explain."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from conftest import ROOT

SOAK = bool(os.environ.get("IOK_SOAK"))
CASES = 200_000 if SOAK else 5_000
SEED = os.getpid() if SOAK else 1
BUILD = pathlib.Path(os.environ.get("IOK_BUILD", ROOT / "build" / "c"))


def test_same_messages_as_other_parsers() -> None:
    differ = ROOT / "tests" / "differ" / "differ.py"
    done = subprocess.run(
        [sys.executable, str(differ), str(BUILD / "tests" / "http_read"), str(CASES), str(SEED)],
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
