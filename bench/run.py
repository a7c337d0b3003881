#!/usr/bin/env python3
"""The front of the benches: prepares the environment, then runs one suite.

A suite is a folder beside this file with a `suite.py` whose first docstring line says what it
measures, and which prints one JSON object as its last line of output. This file knows nothing else
of it.

    bench/run.py                 all suites
    bench/run.py --list
    bench/run.py redis [--rounds N] [--quick] [--json-only] [--only PATTERN]
"""

import ast
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

BENCH = Path(__file__).resolve().parent
REQUIREMENTS = BENCH / "requirements.txt"
VENV_PYTHON = BENCH.parent / ".venv" / "bin" / "python"


def suites() -> dict[str, Path]:
    """Return the suites by name."""
    return {path.parent.name: path for path in sorted(BENCH.glob("*/suite.py"))}


def summary(path: Path) -> str:
    """Return what a suite measures, without importing it."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def enter_venv() -> None:
    """Go on inside .venv, unless a virtual environment is active already."""
    if sys.prefix != sys.base_prefix:
        return
    if not VENV_PYTHON.exists():
        sys.exit("bench: there is no .venv here; `make` makes it")
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])


def required() -> list[str]:
    """Return the names in requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line]


def is_missing(name: str) -> bool:
    """Tell whether a package is absent from this environment."""
    try:
        distribution(name.partition("[")[0])
    except PackageNotFoundError:
        return True
    return False


def install_missing() -> None:
    """Install the peers that this environment lacks."""
    missing = [name for name in required() if is_missing(name)]
    if not missing:
        return
    print(f"bench: installing {', '.join(missing)} into {sys.prefix}", file=sys.stderr, flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, *missing], stdout=sys.stderr).returncode != 0:
        sys.exit(f"bench: pip could not install {', '.join(missing)}, which are part of the bench")


def main() -> None:
    """Run the suite that the first argument names, or all of them."""
    found = suites()
    names, arguments = sys.argv[1:2] or list(found), sys.argv[2:]
    if names == ["--list"]:
        for name, path in found.items():
            print(f"{name:12} {summary(path)}")
        return
    if names[0] not in found:
        known = ", ".join(found)
        sys.exit(
            f"bench: no suite {names[0]!r}; use --list, or NAME [options] with one of: {known}"
        )
    enter_venv()
    install_missing()
    environment = os.environ | {"PYTHONPATH": str(BENCH)}  # For bench/shared.
    for name in names:
        command = [sys.executable, str(found[name]), *arguments]
        if code := subprocess.run(command, env=environment).returncode:
            sys.exit(code)


if __name__ == "__main__":
    main()
