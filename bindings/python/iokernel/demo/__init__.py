"""The demonstration: tasks and threads on private servers, Redis and PostgreSQL, that are stopped
in the middle; then a web page of many services, while Python computes.

``iokernel demo``, ``python -m iokernel.demo`` or ``make demo``. It starts servers of its own on
unix sockets in a temporary directory, makes calls for a few seconds, takes each server away for a
while, and accounts for every call: what the replies told the program, what the kernel counted and
what the servers have stored must agree.

The calls alternate between one that the kernel may repeat when a connection is lost (GET, SELECT)
and one that it may not (INCR, INSERT). The servers keep their data when they are stopped, so that
it can be compared with the outcomes at the end.

Then ``iokernel serve`` serves a front end and three replicas, and what is asked of the front end is
made of what a replica, Redis and PostgreSQL say. It is made to compute for two seconds, while its
health is asked for.

servers.py has the servers, load.py the callers, course.py the course of events, report.py its sums;
web.py has the applications, front.py what happens to them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time

from iokernel.demo.course import Course, run_all
from iokernel.demo.front import REPLICAS, Front, run_front
from iokernel.demo.load import postgres_load, redis_load
from iokernel.demo.report import report, report_front
from iokernel.demo.servers import (
    DemoError,
    PostgresServer,
    RedisServer,
    Server,
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
    parser.add_argument(
        "--web-seconds",
        type=float,
        default=1.0,
        help="of pages before and after Python computes; 0: without the web (%(default)s)",
    )
    parser.add_argument(
        "--compute", type=float, default=2.0, help="seconds that Python computes (%(default)s)"
    )
    return parser.parse_args(words)


def _web(
    args: argparse.Namespace,
    servers: contextlib.ExitStack,
    redis: Server,
    postgres: Server | None,
) -> list[str]:
    """Run the third part; give what is wrong."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.2f} s  Web: {text}", flush=True)

    print()
    say(f"a front end and {REPLICAS} replicas start")
    front = Front(args.web_seconds, args.compute, say)
    asyncio.run(run_front(front, front.serve(servers, redis, postgres).url, redis))
    return report_front(front)


def _run(args: argparse.Namespace) -> None:
    """Run it all; raise if anything does not add up."""
    with private_directory() as directory, contextlib.ExitStack() as servers:
        redis = servers.enter_context(RedisServer(directory))
        courses = [Course(args, redis_load(redis, args.tasks, args.threads))]
        postgres = None
        if args.pg_tasks > 0 and postgres_programs() is None:
            print("PostgreSQL is not installed: without it")
        elif args.pg_tasks > 0:
            postgres = servers.enter_context(PostgresServer(directory))
            courses.append(Course(args, postgres_load(postgres, args.pg_tasks)))
        asyncio.run(run_all(courses))
        problems = [problem for course in courses for problem in report(course.facts)]
        if args.web_seconds > 0:
            problems += _web(args, servers, redis, postgres)
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
