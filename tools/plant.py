#!/usr/bin/env python3
"""Plants bugs into copies of the tree, and says how soon the simulation finds each.

Usage: plant.py [NAME...]

A planted bug is a patch in tests/sim/planted; what stands before the patch says what it breaks. The
copies, below build/planted, are built without assertions: what finds a bug is what the
simulation checks. Exits with 1 if a bug was not found within SEEDS seeds.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
PLANTED = ROOT / "tests/sim/planted"
SEEDS = 1_000_000
TREE = ("include", "src", "tests", "tools", "meson.build", "meson_options.txt")


def run(*args: object, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """A command, with all that it says."""
    return subprocess.run(
        [str(arg) for arg in args],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def build(patch: pathlib.Path, at: pathlib.Path) -> pathlib.Path:
    """The simulation of a copy of the tree that has the bug."""
    shutil.rmtree(at / "tree", ignore_errors=True)
    for name in TREE:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__", "interop", "python")
            shutil.copytree(ROOT / name, at / "tree" / name, ignore=skip)
        else:
            shutil.copy2(ROOT / name, at / "tree" / name)
    for command in (
        ("patch", "-p1", "--quiet", "--input", patch.resolve()),
        ("meson", "setup", "--wipe" if (at / "build").exists() else "--", at / "build"),
        ("ninja", "-C", at / "build", "--quiet", "tests/test_sim"),
    ):
        if command[0] == "meson":
            command = tuple(part for part in command if part != "--") + ("-Dparts=tests",)
        done = run(*command, cwd=at / "tree")
        if done.returncode != 0:
            raise SystemExit(f"{patch.name}: {command[0]} failed:\n{done.stdout}")
    return at / "build/tests/test_sim"


def hunt(patch: pathlib.Path) -> bool:
    """Builds one and plays seeds until it is found; prints a line of a table."""
    program = build(patch, ROOT / "build/planted" / patch.stem)
    what = " ".join(patch.read_text("utf-8").split("\n---", 1)[0].split())
    start = time.monotonic()
    done = run(program, "play", 1, SEEDS, cwd=ROOT)
    found = re.search(r"seed (\d+) (?:violates: |died )(.*)", done.stdout)
    if done.returncode == 0 or found is None:
        print(f"| {patch.stem} | {what} | not found | {SEEDS} seeds |", flush=True)
        return False
    seconds = time.monotonic() - start
    print(f"| {patch.stem} | {what} | {found[1]} | {seconds:.2f} s | {found[2]} |", flush=True)
    return True


def main() -> int:
    names = sys.argv[1:]
    patches = [p for p in sorted(PLANTED.glob("*.patch")) if not names or p.stem in names]
    print("| bug | what it does | found by seed | after | as |")
    print("|---|---|---|---|---|")
    found = [hunt(patch) for patch in patches]
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
