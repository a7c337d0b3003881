"""What a worker tells its parent while it serves: that it moves, and that it has served enough.

It looks from the event loop, or from the main thread where a pool of threads serves, and reads what
the I/O thread counts; so a request costs nothing. A loop that stands does not look. Threads that
all stand would not keep the main thread from looking: they count as moving while they end a
request now and then, or nobody waits for them.
"""

from __future__ import annotations

import random
import time

from iokernel import _core
from iokernel.serve.options import Options
from iokernel.serve.worker import BEAT, RENEW, Role

LOOK_S = 0.25  # how often it looks how many requests there were
BEATS = 4  # within --timeout, so that a late one does no harm


class Pulse:
    """To be looked at ``every_s`` seconds; None: never."""

    def __init__(self, options: Options, role: Role, listeners: list[_core.Listener]) -> None:
        self._role = role
        self._listeners = listeners
        self._timeout_s = options.timeout
        self._threads = options.threads
        self._requests_max = options.max_requests
        if self._requests_max:
            self._requests_max += random.randint(0, options.max_requests_jitter)
        beat_s = [options.timeout / BEATS] if options.timeout else []
        look_s = [LOOK_S] if options.max_requests else []
        self.every_s = min(beat_s + look_s, default=None)
        self._ended = [0] * len(listeners)
        self._moved_at = [time.monotonic()] * len(listeners)

    def look(self, *, threads: bool = False) -> None:
        """Tell the parent what there is to tell."""
        if self.every_s is None:
            return
        stats = [listener.stats() for listener in self._listeners]
        if self._requests_max:
            if sum(s["requests"] - s["native"] for s in stats) >= self._requests_max:
                self._requests_max = 0
                self._role.tell(RENEW)
        if self._timeout_s and not (threads and self._stand(stats)):
            self._role.tell(BEAT)

    def _stand(self, stats: list[dict[str, int]]) -> bool:
        """Tell whether requests have waited on a listener, and none has ended, for so long."""
        now = time.monotonic()
        for n, s in enumerate(stats):
            ended = s["answered"] + s["gone"]
            waits = s["queued"] > 0 or s["inflight"] > self._threads  # some lie ready for a thread
            if ended != self._ended[n] or not waits:
                self._ended[n] = ended
                self._moved_at[n] = now
        return any(now - at >= self._timeout_s for at in self._moved_at)
