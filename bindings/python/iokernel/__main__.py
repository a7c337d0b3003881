"""The command line: ``iokernel serve``, ``iokernel demo``; or ``python -m iokernel ...``."""

from __future__ import annotations

import argparse
import sys

import iokernel

_COMMANDS = """\
commands:
  serve MODULE:APP  serve an ASGI or WSGI application
  demo              calls on a private Redis and PostgreSQL that are stopped in the middle

iokernel COMMAND --help tells of each
"""


def main(words: list[str] | None = None) -> int:
    """Run one subcommand; give the process's status."""
    parser = argparse.ArgumentParser(
        prog="iokernel",
        description="All network input and output of a process on one thread.",
        epilog=_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"iokernel {iokernel.__version__}")
    parser.add_argument("command", choices=["serve", "demo"])
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="the command's own options")
    args = parser.parse_args(words)
    if args.command == "serve":
        from iokernel import serve

        return serve.main(args.rest)
    from iokernel import demo

    return demo.main(args.rest)


if __name__ == "__main__":
    sys.exit(main())
