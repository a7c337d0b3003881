"""The parent of `iokernel serve`, step by step: workers that die, or that cannot begin."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from iokernel.serve import supervisor
from iokernel.serve.options import Options
from iokernel.serve.reload import Watcher
from iokernel.serve.sockets import BindError, Bound, bind_all
from iokernel.serve.supervisor import STEADY_S, Slot, Supervisor, Worker
from iokernel.serve.worker import FAILED_TO_START


@pytest.fixture
def parent() -> Iterator[Supervisor]:
    bound = bind_all(Options("x:y", ["127.0.0.1:0"], timeout=8, start_timeout=60))
    made = Supervisor(bound.options, bound)
    made.began = True
    yield made
    made.selector.close()
    os.close(made.read_fd)
    os.close(made.write_fd)
    bound.close()


def worker(lived_s: float, *, served_s: float | None = None, told: bool = False) -> Worker:
    """One that was born so long ago, and has been ready for so long."""
    now = time.monotonic()
    return Worker(
        pid=0,
        pipe_fd=-1,
        alive_fd=-1,
        born=now - lived_s,
        ready_at=None if served_s is None else now - served_s,
        heard_at=now,
        told_to_end=now if told else None,
    )


def death(parent: Supervisor, slot: Slot, dead: Worker, code: int = -signal.SIGKILL) -> None:
    parent._on_death(slot, dead, code)


def test_a_new_worker_that_dies_while_the_old_one_drains_is_replaced(parent: Supervisor) -> None:
    slot = parent.slots[0]
    slot.workers = [worker(100, served_s=99, told=True)]
    death(parent, slot, worker(10, served_s=9))
    assert slot.start_at is not None


def test_one_that_dies_before_it_is_ready_leaves_the_old_one(parent: Supervisor) -> None:
    slot = parent.slots[0]
    slot.workers = [worker(100, served_s=99)]
    death(parent, slot, worker(10), FAILED_TO_START)
    assert slot.start_at is None


def test_a_slot_that_nobody_serves_gets_a_worker(parent: Supervisor) -> None:
    slot = parent.slots[0]
    parent._reap()
    assert slot.start_at is not None


def test_pauses_grow_until_one_has_served_for_a_while(parent: Supervisor) -> None:
    slot = parent.slots[0]
    pauses = []
    for _ in range(9):  # slow to load, and dead as soon as it serves
        death(parent, slot, worker(60, served_s=STEADY_S / 2))
        pauses.append(slot.pause)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    death(parent, slot, worker(60))  # never ready, however long it took
    assert slot.pause == 30
    death(parent, slot, worker(60, served_s=STEADY_S * 2))
    assert slot.pause == 0
    death(parent, slot, worker(1, served_s=STEADY_S / 2))
    assert slot.pause == 0.5


def test_to_be_ready_alone_does_not_reset_the_pause(parent: Supervisor) -> None:
    slot = parent.slots[0]
    slot.pause = 8.0
    read_fd, write_fd = os.pipe()
    ready = worker(1)
    ready.pipe_fd = read_fd
    slot.workers = [ready]
    parent.selector.register(read_fd, supervisor.selectors.EVENT_READ, (slot, ready))
    os.write(write_fd, b"asgi\n")
    parent._read_worker((slot, ready))
    assert ready.ready_at is not None
    assert slot.pause == 8.0
    os.close(write_fd)
    parent._read_worker((slot, ready))


def test_a_signal_right_behind_the_fork_ends_the_worker(
    parent: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = os.fork

    def fork_and_signal() -> int:
        pid = fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    monkeypatch.setattr(os, "fork", fork_and_signal)
    before = signal.signal(signal.SIGTERM, parent._on_signal)
    try:
        if parent._start(parent.slots[0]) is not None:
            os._exit(0)  # the signal was lost
        (started,) = parent.slots[0].workers
        _, status = os.waitpid(started.pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(supervisor.HANDLED)
    finally:
        signal.signal(signal.SIGTERM, before)
    parent._forget_pipe(started)
    os.close(started.alive_fd)


def test_an_address_that_is_lost_costs_the_new_worker_only(
    parent: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> socket.socket:
        raise BindError("cannot bind there: Too many open files")

    def fork() -> int:
        raise AssertionError("nobody is to be forked")

    monkeypatch.setattr("iokernel.serve.sockets._bind_tcp", refuse)
    monkeypatch.setattr(os, "fork", fork)
    parent._handle(signal.SIGTTIN)
    parent.slots[0].start_at = None
    assert parent._start_due() is None
    parent._reap()
    assert [slot.number for slot in parent.slots] == [0]


def test_the_parent_binds_before_it_forks(
    parent: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fork() -> int:
        seen.append(len(parent.bound.addresses[0].sockets))
        return 1 << 22  # nobody's pid

    monkeypatch.setattr(os, "fork", fork)
    parent._handle(signal.SIGTTIN)
    parent.slots[0].start_at = None
    assert parent._start_due() is None
    assert seen == [2]
    (started,) = parent.slots[1].workers
    parent._forget_pipe(started)
    os.close(started.alive_fd)
    started.told_to_end = None
    parent.slots.pop()


def test_slots_have_sockets_of_their_own_only(parent: Supervisor) -> None:
    """Whoever holds a socket that it does not accept on takes connections into nowhere."""
    bound: Bound = parent.bound
    bound.open_slot(1)
    bound.open_slot(3)  # as 2 is ending, and keeps what it has
    assert sorted(bound.addresses[0].sockets) == [0, 1, 3]
    bound.keep_slot(1)
    assert sorted(bound.addresses[0].sockets) == [1]


def test_a_worker_that_dies_while_its_successor_starts(
    parent: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    slot = parent.slots[0]
    slot.workers = [worker(1)]
    death(parent, slot, worker(100, served_s=99))
    assert slot.start_at is None  # one is on its way
    assert "was ended by SIGKILL while a new one starts in its place" in caplog.text
    death(parent, slot, worker(2), FAILED_TO_START)
    assert "ended with status 3 before it was ready: the old one stays" in caplog.text


def test_with_reload_a_broken_application_is_not_tried_again_by_itself(parent: Supervisor) -> None:
    parent.watcher = Watcher([], parent.write_fd)
    parent.began = False
    slot = parent.slots[0]
    death(parent, slot, worker(1), FAILED_TO_START)
    parent._reap()
    assert slot.start_at is None
    parent._renew()
    assert slot.start_at is not None


def test_a_successor_that_dies_is_replaced_if_the_old_one_has_to_end(parent: Supervisor) -> None:
    slot = parent.slots[0]
    old = worker(100, served_s=99)
    slot.workers = [old]
    parent._hear(slot, old, "renew")
    assert slot.start_at is not None
    slot.start_at = None
    death(parent, slot, worker(1), FAILED_TO_START)
    assert slot.start_at is not None
    assert slot.pause == 0.5


def test_one_that_has_a_successor_gets_no_second_one(parent: Supervisor) -> None:
    slot = parent.slots[0]
    old = worker(100, served_s=99)
    slot.workers = [old, worker(1)]
    parent._hear(slot, old, "renew")
    assert slot.start_at is None


def test_one_that_stands_gets_an_abort_and_then_is_killed(
    parent: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    standing, slow = worker(100, served_s=99), worker(59)
    standing.pid, slow.pid = 1001, 1002
    parent.slots[0].workers = [standing, slow]
    parent._insist()
    assert sent == []  # it was heard of just now
    standing.heard_at -= 8
    parent._insist()
    assert sent == [(1001, signal.SIGABRT)]
    parent._insist()
    assert len(sent) == 1
    standing.aborted = time.monotonic() - supervisor.ABORT_S
    slow.born -= 1.5
    parent._insist()
    assert sent[1:] == [(1001, signal.SIGKILL), (1002, signal.SIGABRT)]
    parent._insist()
    assert len(sent) == 3
    parent.slots[0].workers = []


def test_one_that_ends_has_its_grace_and_need_not_move(
    parent: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    ending = worker(100, served_s=99, told=True)
    ending.heard_at -= 80
    parent.slots[0].workers = [ending]
    parent._insist()
    assert sent == []
    assert ending.told_to_end is not None
    ending.told_to_end -= parent._grace()
    parent._insist()
    assert sent == [signal.SIGKILL]
    parent.slots[0].workers = []
