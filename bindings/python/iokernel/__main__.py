"""The command line: ``iokernel demo``, or ``python -m iokernel demo``."""

from __future__ import annotations

import argparse
import sys

import iokernel


def main(words: list[str] | None = None) -> int:
    """Run one subcommand; give the process's status."""
    parser = argparse.ArgumentParser(
        prog="iokernel",
        description="All network input and output of a process on one thread.",
        epilog="commands: demo (calls on a private Redis and PostgreSQL, stopped in the middle)",
    )
    parser.add_argument("--version", action="version", version=f"iokernel {iokernel.__version__}")
    parser.add_argument("command", choices=["demo"])
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="the command's own options")
    args = parser.parse_args(words)
    from iokernel import demo

    return demo.main(args.rest)


if __name__ == "__main__":
    sys.exit(main())
