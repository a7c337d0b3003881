"""The sums: what the program saw, what the kernel counted and what a server has stored."""

from __future__ import annotations

from iokernel.demo.course import Facts
from iokernel.demo.front import Front
from iokernel.demo.load import OUTCOMES


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:9.3f}"


def _show_phases(facts: Facts) -> None:
    print("\nlatency by phase, in ms       p50       p99       max")
    for phase in ("submit", "queue", "service", "pickup", "total"):
        figures = facts.kernel[phase]
        row = " ".join(_milliseconds(figures[key]) for key in ("p50", "p99", "max"))
        print(f"  {phase:20} {row}")


def _show_outcomes(facts: Facts) -> None:
    tally, commands = facts.tally, (facts.kind.read, facts.kind.write)
    print(f"\noutcome       {commands[0]:>12} {commands[1]:>12} {'both':>12}")
    for outcome in OUTCOMES:
        parts = [tally.ended[command, outcome] for command in commands]
        print(f"  {outcome:14}" + " ".join(f"{n:12,}" for n in (*parts, sum(parts)))[2:])
    made = [tally.made[command] for command in commands]
    print("  calls made    " + " ".join(f"{n:12,}" for n in (*made, sum(made)))[2:])
    print(f"\nrepeated by the kernel, after the connection was lost: {facts.kernel['retries']:,}")
    for error, n in sorted(tally.errors.items()):
        print(f"raised {n:,} times: {error}")


def _bounds(facts: Facts) -> tuple[int, int]:
    """Give the fewest and the most writes that the outcomes allow."""
    done = facts.tally.ended[facts.kind.write, "done"]
    return done, done + facts.tally.ended[facts.kind.write, "maybe-executed"]


def _problems(facts: Facts) -> list[str]:
    """Name every sum that does not add up."""
    tally, kind, found = facts.tally, facts.kind, []
    made, ended = sum(tally.made.values()), sum(tally.ended.values())
    if made != ended:
        found.append(f"{made} calls were made, but {ended} have ended")
    for outcome in OUTCOMES:
        kernel = facts.kernel["ended"][outcome]
        seen = tally.of(outcome) + (outcome == "done")  # ready() is a call to the kernel, too
        if kernel != seen:
            found.append(f"the kernel counts {kernel} calls as {outcome}, the program {seen}")
    least, most = _bounds(facts)
    if not least <= facts.written <= most:
        found.append(f"{facts.written} were written, not within {least} and {most}")
    if tally.ended[kind.read, "done"] == 0 or least == 0:
        found.append("no call was done")
    if facts.connections != (kind.connections, kind.connections):
        found.append(
            "the server counts {} and {} connections, not {}".format(
                *facts.connections, kind.connections
            )
        )
    return found


def report(facts: Facts) -> list[str]:
    """Print what was found; give what is wrong with it."""
    title = f"{facts.kind.title}: {facts.kind.tasks} tasks"
    print(f"\n---- {title} {'-' * (70 - len(title))}\n")
    print(f"calls per second: {facts.rate:,.0f} before the stop, {facts.rate_after:,.0f} after")
    print(
        "connections that the server counts: {} before the stop, {} after".format(
            *facts.connections
        )
    )
    print(f"the server was away for {facts.away_s:.2f} s; {facts.back_s:.2f} s later all was well")
    _show_phases(facts)
    _show_outcomes(facts)
    least, most = _bounds(facts)
    print(f"\n{'written, as the server has it:':32}{facts.written:12,}")
    print(f"{f'  at least ({facts.kind.write} done):':32}{least:12,}")
    print(f"{'  at most (and maybe-executed):':32}{most:12,}")
    problems = _problems(facts)
    for problem in problems:
        print(f"WRONG: {problem}")
    return problems


def _front_problems(front: Front) -> list[str]:
    found = [f"{n} pages failed: {what}" for what, n in front.failed.items()]
    if front.done == 0 or front.visits != front.done:
        found.append(f"{front.done} pages came, but Redis counts {front.visits} visits")
    if front.sick or not front.health:
        found.append(f"{front.sick} of {len(front.health)} health checks were not answered well")
    elif max(front.health) > front.computed:
        found.append("a health check waited for Python")
    return found


def report_front(front: Front) -> list[str]:
    """Print what was found; give what is wrong with it."""
    print(f"\n---- Web: a page of four services {'-' * 44}\n")
    print(f"pages per second: {front.rate:,.0f}; {front.done:,} in all, of which")
    for name, n in sorted(front.by_replica.items()):
        print(f"  {name:18} {n:10,}")
    print(f"{'visits, as Redis has it:':21}{front.visits:10,}")
    health = sorted(front.health) or [0.0]
    at = [health[min(int(len(health) * part), len(health) - 1)] for part in (0.5, 0.99, 1)]
    print(f"\nPython computed for {front.computed:.2f} s. In ms:          p50       p99       max")
    print(
        f"  {len(front.health):,} health checks meanwhile".ljust(41)
        + " ".join(_milliseconds(seconds) for seconds in at)
    )
    print("  a page, at worst".ljust(61) + _milliseconds(front.longest))
    problems = _front_problems(front)
    for problem in problems:
        print(f"WRONG: {problem}")
    return problems
