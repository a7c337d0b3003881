"""The parent process: starts workers, starts them again, ends them.

It is a loop around one selector: a pipe that signals and the file watcher write to, and for each
worker a pipe by which that says that it is ready, that it moves, and that it has served enough. It
imports nothing of the application.

A slot is a place for a worker, with sockets of its own; while workers are renewed a slot has two,
the old one until the new one is ready.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from dataclasses import dataclass, field
from types import FrameType

import iokernel
from iokernel.serve.log import log
from iokernel.serve.options import Options
from iokernel.serve.reload import Watcher
from iokernel.serve.sockets import BindError, Bound
from iokernel.serve.worker import FAILED_TO_START, PATIENCE_S, RENEW, Role

HANDLED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD,
)  # fmt: skip
PAUSE_MIN_S, PAUSE_MAX_S = 0.5, 30.0  # between the death of a worker and the next one in its slot
STEADY_S = 1.0  # one that served for so long is replaced at once when it dies
AT_ONCE_S = 1.0  # for a worker that was told to end at once; then SIGKILL
ABORT_S = 1.0  # for one that stands, to show where; then SIGKILL
WORKERS_MAX = 1024


@dataclass
class Worker:
    """One child process."""

    pid: int
    pipe_fd: int  # we read
    alive_fd: int  # we hold it; when it closes the worker ends
    born: float
    ready_at: float | None = None
    heard_at: float = 0.0  # that it moves
    enough: bool = False  # it has served as many requests as it may
    aborted: float | None = None  # as it did not move
    told_to_end: float | None = None
    killed: bool = False
    said: bytes = b""


@dataclass
class Slot:
    """A place for a worker."""

    number: int
    workers: list[Worker] = field(default_factory=list)
    pause: float = 0.0
    start_at: float | None = None  # when to try again
    wanted: bool = True
    broken: bool = False  # the application does not start; a change of its files tries again


def _signal(worker: Worker, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.pid, number)


class Supervisor:
    """Runs until a signal; in a child run() returns what that has to be."""

    def __init__(self, options: Options, bound: Bound) -> None:
        self.options = options
        self.bound = bound
        self.slots = [Slot(n) for n in range(options.workers)]
        self.status = 0
        self.ending = False
        self.began = False  # all were ready once
        self.selector = selectors.DefaultSelector()
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watcher: Watcher | None = None
        self.signals: list[int] = []

    # ---- the loop

    def run(self) -> int | Role:
        """Give the exit status; or in a worker's process its role."""
        for number in HANDLED:
            signal.signal(number, self._on_signal)
        # One that arrives between two looks ends the select at once, and is not lost.
        signal.set_wakeup_fd(self.write_fd, warn_on_full_buffer=False)
        self.selector.register(self.read_fd, selectors.EVENT_READ)
        if self.options.reload:
            directories = self.options.reload_dir or [self.options.app_dir]
            self.watcher = Watcher(directories, self.write_fd)
        for slot in self.slots:
            slot.start_at = 0.0
        while True:
            role = self._start_due()
            if role is not None:
                return role
            if self.watcher is not None and not self.watcher.started:
                self.watcher.start()  # after the first forks: they see one thread
            if self._has_ended():
                return self._leave()
            self._wait()

    def _wait(self) -> None:
        for key, _ in self.selector.select(self._timeout()):
            if key.fd == self.read_fd:
                self._read_notes()
            else:
                self._read_worker(key.data)
        while self.signals:
            self._handle(self.signals.pop(0))
        self._reap()
        self._insist()

    def _timeout(self) -> float | None:
        now = time.monotonic()
        due = [s.start_at for s in self.slots if s.start_at is not None and not self.ending]
        for worker in self._workers():
            at = self._limit(worker)
            if at is not None and not worker.killed:
                due.append(at)
        return max(0.0, min(due) - now) if due else None

    def _workers(self) -> list[Worker]:
        return [worker for slot in self.slots for worker in slot.workers]

    def _grace(self) -> float:
        return self.options.graceful_timeout + PATIENCE_S

    def _has_ended(self) -> bool:
        return self.ending and not self._workers()

    def _leave(self) -> int:
        if self.watcher is not None and self.watcher.started:
            self.watcher.stop()
        signal.set_wakeup_fd(-1)
        self.bound.close()
        log.info("ended")
        return self.status

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def _read_notes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            notes = os.read(self.read_fd, 4096)
            if b"F" in notes and self.watcher is not None and not self.ending:
                log.info("%s changed: new workers", self.watcher.path)
                self._renew()

    # ---- starting

    def _start_due(self) -> Role | None:
        now = time.monotonic()
        for slot in self.slots:
            if slot.start_at is not None and slot.start_at <= now and not self.ending:
                slot.start_at = None
                role = self._start(slot)
                if role is not None:
                    return role
        return None

    def _start(self, slot: Slot) -> Role | None:
        try:
            self.bound.open_slot(slot.number)
        except BindError as error:  # of a slot that was added: the others are bound at the start
            log.error("%s: no worker more", error)
            slot.wanted = False
            return None
        slot.broken = False
        pipe_read, pipe_write = os.pipe2(os.O_CLOEXEC)
        alive_read, alive_write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(pipe_write, False)
        # One that came to the child before it has forgotten our handlers would say nothing to it.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()
        if pid == 0:
            self._become_worker(slot)
            os.close(pipe_read)
            os.close(alive_write)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            return Role(self.bound, slot.number, pipe_write, alive_read)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        os.close(pipe_write)
        os.close(alive_read)
        worker = Worker(pid, pipe_read, alive_write, time.monotonic())
        slot.workers.append(worker)
        self.selector.register(pipe_read, selectors.EVENT_READ, (slot, worker))
        return None

    def _become_worker(self, slot: Slot) -> None:
        """Forget, in the child, what is the parent's."""
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        self.bound.keep_slot(slot.number)
        self.selector.close()
        os.close(self.read_fd)
        os.close(self.write_fd)
        for worker in self._workers():
            for fd in (worker.pipe_fd, worker.alive_fd):
                if fd >= 0:
                    os.close(fd)

    def _read_worker(self, data: tuple[Slot, Worker]) -> None:
        slot, worker = data
        said = os.read(worker.pipe_fd, 4096)
        if not said:
            self._forget_pipe(worker)
            return
        worker.heard_at = time.monotonic()
        *lines, worker.said = (worker.said + said).split(b"\n")
        for line in lines:
            self._hear(slot, worker, line.decode())

    def _hear(self, slot: Slot, worker: Worker, line: str) -> None:
        others = [other for other in slot.workers if other is not worker]
        if worker.ready_at is None:
            worker.ready_at = time.monotonic()
            log.debug("worker %d is ready", worker.pid)
            for other in others:
                self._tell_to_end(other)
            self._announce(line)
        elif line == RENEW and worker.told_to_end is None:
            log.info("worker %d has served its requests: a new one", worker.pid)
            worker.enough = True
            if all(other.told_to_end is not None for other in others):
                slot.start_at = time.monotonic()

    def _forget_pipe(self, worker: Worker) -> None:
        if worker.pipe_fd >= 0:
            self.selector.unregister(worker.pipe_fd)
            os.close(worker.pipe_fd)
            worker.pipe_fd = -1

    def _announce(self, interface: str) -> None:
        if self.began or not all(
            any(w.ready_at is not None for w in slot.workers) for slot in self.slots
        ):
            return
        self.began = True
        n = len(self.slots)
        log.info(
            "iokernel %s serves %s (%s) on %s with %d %s",
            iokernel.__version__, self.options.app, interface.upper(), self.bound.shown(),
            n, "worker" if n == 1 else "workers",
        )  # fmt: skip

    # ---- ending

    def _tell_to_end(self, worker: Worker) -> None:
        if worker.told_to_end is None:
            worker.told_to_end = time.monotonic()
            _signal(worker, signal.SIGTERM)

    def _tell_at_once(self, worker: Worker) -> None:
        self._tell_to_end(worker)
        worker.told_to_end = time.monotonic() - self._grace() + AT_ONCE_S
        _signal(worker, signal.SIGQUIT)

    def _limit(self, worker: Worker) -> float | None:
        """Give the time at which we wait for it no longer."""
        if worker.told_to_end is not None:
            return worker.told_to_end + self._grace()
        if worker.aborted is not None:
            return worker.aborted + ABORT_S
        if worker.ready_at is None:
            start_s = self.options.start_timeout
            return worker.born + start_s if start_s else None
        return worker.heard_at + self.options.timeout if self.options.timeout else None

    def _insist(self) -> None:
        now = time.monotonic()
        for worker in self._workers():
            at = self._limit(worker)
            if at is None or at > now or worker.killed:
                continue
            if worker.told_to_end is None and worker.aborted is None:
                self._abort(worker)
                continue
            if worker.aborted is None:
                log.warning("worker %d did not end in time: killed", worker.pid)
            worker.killed = True
            _signal(worker, signal.SIGKILL)

    def _abort(self, worker: Worker) -> None:
        if worker.ready_at is None:
            log.error("worker %d did not start in %g s", worker.pid, self.options.start_timeout)
        else:
            log.error("worker %d has not moved for %g s", worker.pid, self.options.timeout)
        worker.aborted = time.monotonic()
        _signal(worker, signal.SIGABRT)

    def _reap(self) -> None:
        for slot in self.slots:
            for worker in list(slot.workers):
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid != 0:
                    self._forget_pipe(worker)
                    os.close(worker.alive_fd)
                    slot.workers.remove(worker)
                    self._on_death(slot, worker, os.waitstatus_to_exitcode(status))
        for slot in self.slots:
            idle = not slot.workers and slot.start_at is None
            if idle and slot.wanted and not slot.broken and not self.ending:
                slot.start_at = time.monotonic() + slot.pause
        self.slots = [slot for slot in self.slots if slot.wanted or slot.workers]

    def _on_death(self, slot: Slot, worker: Worker, code: int) -> None:
        if worker.told_to_end is not None or self.ending or not slot.wanted:
            return
        how = (
            f"ended with status {code}"
            if code >= 0
            else f"was ended by {signal.Signals(-code).name}"
        )
        others = [other for other in slot.workers if other.told_to_end is None]
        if others and worker.ready_at is not None:
            log.error("worker %d %s while a new one starts in its place", worker.pid, how)
            return
        if others and not any(other.enough for other in others):  # it was to replace that
            log.error("worker %d %s before it was ready: the old one stays", worker.pid, how)
            return
        if code == FAILED_TO_START and not self.began and not others:
            if self.watcher is not None:
                log.error("the application did not start; a change of its files tries again")
                slot.broken = True
                return
            self.status = 1
            self._end()
            return
        ready_at = worker.ready_at
        steady = ready_at is not None and time.monotonic() - ready_at > STEADY_S
        slot.pause = 0.0 if steady else min(max(slot.pause * 2, PAUSE_MIN_S), PAUSE_MAX_S)
        log.error("worker %d %s; a new one in %.1f s", worker.pid, how, slot.pause)
        slot.start_at = time.monotonic() + slot.pause

    def _end(self) -> None:
        again = self.ending
        self.ending = True
        for worker in self._workers():
            if again:
                self._tell_at_once(worker)
            else:
                self._tell_to_end(worker)

    # ---- signals

    def _handle(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            log.info("%s: ending%s", signal.Signals(number).name, " at once" if self.ending else "")
            self._end()
        elif self.ending or number == signal.SIGCHLD:
            return
        elif number == signal.SIGHUP:
            log.info("SIGHUP: new workers")
            self._renew()
        elif number == signal.SIGTTIN and len(self.slots) < WORKERS_MAX:
            self._add_slot()
        elif number == signal.SIGTTOU and sum(slot.wanted for slot in self.slots) > 1:
            self._drop_slot()

    def _renew(self) -> None:
        for slot in self.slots:
            if not slot.wanted:
                continue
            for worker in slot.workers:
                if worker.ready_at is None:  # it has the code of before
                    self._tell_to_end(worker)
            slot.pause = 0.0
            slot.start_at = time.monotonic()

    def _add_slot(self) -> None:
        number = min(set(range(len(self.slots) + 1)) - {slot.number for slot in self.slots})
        log.info("SIGTTIN: a worker more")
        self.slots.append(Slot(number, start_at=time.monotonic()))

    def _drop_slot(self) -> None:
        slot = max((s for s in self.slots if s.wanted), key=lambda s: s.number)
        log.info("SIGTTOU: a worker less")
        slot.wanted = False
        slot.start_at = None
        self.bound.close_slot(slot.number)
        for worker in slot.workers:
            self._tell_to_end(worker)
