"""Requests to a server all the time, so that a test sees whether any is lost."""

from __future__ import annotations

import threading

from kit.serve import Served


class Load:
    """Asks all the time, on connections of its own, and counts what goes wrong."""

    def __init__(self, served: Served, threads: int = 4) -> None:
        self.answers: list[bytes] = []
        self.failures: list[BaseException] = []
        self._served = served
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                answer = self._served.get()
                assert answer.status == 200
                self.answers.append(answer.body)
            except BaseException as error:
                self.failures.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
