"""What a worker of `iokernel serve` tells its parent: that it moves, that it has served enough."""

from __future__ import annotations

import random
from typing import Any

import pytest
from iokernel.serve import pulse
from iokernel.serve.options import Options
from iokernel.serve.pulse import Pulse


class Listener:
    """Counts as the I/O thread would."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            ("requests", "native", "answered", "gone", "queued", "inflight"), 0
        )

    def stats(self) -> dict[str, int]:
        return dict(self.counts)


class Parent:
    """Hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def tell(self, line: str) -> None:
        self.heard.append(line)

    def hears(self, of: Pulse, **how: bool) -> list[str]:
        """What it hears as it looks once."""
        self.heard.clear()
        of.look(**how)
        return list(self.heard)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """[0] is the time."""
    now = [1000.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    return now


def made(parent: Parent, listeners: list[Listener], **options: Any) -> Pulse:
    return Pulse(Options("x", **options), parent, listeners)  # type: ignore[arg-type]


def test_nothing_is_looked_at_unless_asked_for() -> None:
    parent = Parent()
    silent = made(parent, [Listener()])
    assert silent.every_s is None
    assert parent.hears(silent) == []


def test_requests_are_counted_over_all_listeners_and_told_once() -> None:
    parent, one, two = Parent(), Listener(), Listener()
    counting = made(parent, [one, two], max_requests=10)
    one.counts.update(requests=5 + 7, native=7)
    two.counts.update(requests=4)
    assert parent.hears(counting) == []
    two.counts.update(requests=5)
    assert parent.hears(counting) == ["renew"]
    assert parent.hears(counting) == []


def test_jitter_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def most(low: int, high: int) -> int:
        asked.append((low, high))
        return high

    monkeypatch.setattr(random, "randint", most)
    parent, listener = Parent(), Listener()
    counting = made(parent, [listener], max_requests=10, max_requests_jitter=3)
    assert asked == [(0, 3)]
    listener.counts.update(requests=12)
    assert parent.hears(counting) == []
    listener.counts.update(requests=13)
    assert parent.hears(counting) == ["renew"]


def test_a_loop_that_looks_moves(clock: list[float]) -> None:
    parent, listener = Parent(), Listener()
    beating = made(parent, [listener], timeout=8)
    assert beating.every_s == 2
    listener.counts.update(queued=5)  # it may well have no room for more
    for _ in range(9):
        clock[0] += 2
        assert parent.hears(beating) == ["beat"]


@pytest.mark.parametrize("waiting", [{"queued": 1}, {"inflight": 5}])
def test_threads_stand_when_requests_wait_and_none_ends(
    clock: list[float], waiting: dict[str, int]
) -> None:
    parent, idle, busy = Parent(), Listener(), Listener()
    beating = made(parent, [idle, busy], timeout=8, threads=4)
    busy.counts.update(inflight=4)
    for _ in range(9):  # nobody waits: they may take as long as they like
        clock[0] += 2
        assert parent.hears(beating, threads=True) == ["beat"]
    busy.counts.update(waiting)
    for _ in range(3):
        clock[0] += 2
        assert parent.hears(beating, threads=True) == ["beat"]
    clock[0] += 2
    assert parent.hears(beating, threads=True) == []
    busy.counts.update(answered=1)
    assert parent.hears(beating, threads=True) == ["beat"]
    for _ in range(9):  # each is slow, but they go on
        clock[0] += 7
        busy.counts["gone"] += 1
        assert parent.hears(beating, threads=True) == ["beat"]
