"""The demonstration: tasks and threads on private servers, Redis and PostgreSQL, that are stopped
in the middle.

``iokernel demo``, ``python -m iokernel.demo`` or ``make demo``. It starts servers of its own on
unix sockets in a temporary directory, makes calls for a few seconds, takes each server away for a
while, and accounts for every call: what the replies told the program, what the kernel counted and
what the servers have stored must agree.

The calls alternate between one that the kernel may repeat when a connection is lost (GET, SELECT)
and one that it may not (INCR, INSERT). The servers keep their data when they are stopped, so that
it can be compared with the outcomes at the end.

servers.py has the servers, load.py the callers, course.py the course of events, report.py its sums.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

from iokernel.demo.course import Course, run_all
from iokernel.demo.load import postgres_load, redis_load
from iokernel.demo.report import report
from iokernel.demo.servers import (
    DemoError,
    PostgresServer,
    RedisServer,
    postgres_programs,
    private_directory,
)
from iokernel.errors import Error

__all__ = ["main"]


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="iokernel demo", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--tasks", type=int, default=1000, help="on Redis (%(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="likewise, plain ones (%(default)s)")
    parser.add_argument(
        "--pg-tasks", type=int, default=500, help="on PostgreSQL; 0: without it (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of calls (%(default)s)")
    parser.add_argument(
        "--away", type=float, default=1.0, help="seconds without each server (%(default)s)"
    )
    return parser.parse_args(words)


def _run(args: argparse.Namespace) -> None:
    """Run it all; raise if anything does not add up."""
    with private_directory() as directory, contextlib.ExitStack() as servers:
        redis = servers.enter_context(RedisServer(directory))
        courses = [Course(args, redis_load(redis, args.tasks, args.threads))]
        if args.pg_tasks > 0 and postgres_programs() is None:
            print("PostgreSQL is not installed: without it")
        elif args.pg_tasks > 0:
            postgres = servers.enter_context(PostgresServer(directory))
            courses.append(Course(args, postgres_load(postgres, args.pg_tasks)))
        asyncio.run(run_all(courses))
        problems = [problem for course in courses for problem in report(course.facts)]
        if problems:
            raise DemoError("the sums do not add up")
    print("\nEvery call is accounted for: the program, the kernel and the servers agree.")


def main(words: list[str] | None = None) -> int:
    """Run it; 0 when everything adds up."""
    try:
        _run(_options(words))
    except (DemoError, Error) as error:
        print(f"iokernel demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
