"""The demonstration, short: it ends well, without a terminal, and its sums add up."""

from __future__ import annotations

import subprocess
import sys


def test_demo() -> None:
    words = ("--tasks=100", "--threads=2", "--pg-tasks=100", "--seconds=1", "--away=0.2")
    web = ("--web-seconds=0.3", "--compute=0.5")
    done = subprocess.run(
        [sys.executable, "-m", "iokernel", "demo", *words, *web],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert "connections that the server counts: 1 before the stop, 1 after" in done.stdout
    assert "connections that the server counts: 4 before the stop, 4 after" in done.stdout
    assert "health checks meanwhile" in done.stdout
    assert done.stdout.rstrip().endswith("the program, the kernel and the servers agree.")
