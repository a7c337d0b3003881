"""Redis for plain threads: transactions, subscriptions, scans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.errors import Closed, Error, Timeout
from iokernel.redis import (
    RETRY_S_MAX,
    RETRY_S_MIN,
    Message,
    RedisCommands,
    SubscriptionState,
    is_passing,
    raise_first,
    scan_words,
    transaction_commands,
    transaction_results,
)

if TYPE_CHECKING:
    from iokernel._core import Argument

from iokernel.sync.client import Client, Lease


class Transaction(RedisCommands, _core.Queue):
    """Collects commands and runs them as one at the end of the ``with`` block.

    ``results`` has their replies then. If one failed, the others were run all the same; the first
    failure is raised after ``results`` was set. Leaving the block by an exception runs nothing.
    """

    __slots__ = ("_client", "_lease", "results")

    def __new__(cls, client: Redis | None = None, lease: RedisLease | None = None) -> Transaction:
        """Make the empty queue; the arguments are __init__'s."""
        return super().__new__(cls)

    def __init__(self, client: Redis | None = None, lease: RedisLease | None = None) -> None:
        self._client = client
        self._lease = lease
        self.results: list[Any] | None = None

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if kind is None:
            self._run()

    def _run(self) -> None:
        if not self.commands:
            self.results = []
            return
        words = transaction_commands(self.commands)
        if self._lease is not None:
            replies = self._lease.call_many(words)
        else:
            assert self._client is not None
            with self._client.lease() as lease:
                replies = lease.call_many(words)
        self.results = transaction_results(replies)
        raise_first(self.results)


class RedisLease(RedisCommands, Lease):
    """A connection to Redis of one's own."""

    __slots__ = ()

    def transaction(self) -> Transaction:
        """Collect commands, to run them as one on this connection."""
        return Transaction(lease=self)


class Watch:
    """Watches keys for the ``with`` block, which gets the lease that does."""

    __slots__ = ("_client", "_keys", "_lease")

    def __init__(self, client: Redis, keys: tuple[Argument, ...]) -> None:
        self._client = client
        self._keys = keys
        self._lease: RedisLease | None = None

    def __enter__(self) -> RedisLease:
        self._lease = lease = self._client.lease()
        try:
            lease.call("WATCH", *self._keys)
        except BaseException:
            lease.close()
            raise
        return lease

    def __exit__(self, *exc: object) -> None:
        if self._lease is not None:
            self._lease.close()


class Subscription(SubscriptionState):
    """An endless iterator of messages, which subscribes again when its connection was lost."""

    __slots__ = ("__weakref__", "_client", "_closed", "_lease", "_stream")

    def __init__(
        self, client: Redis, command: str, channels: tuple[Argument, ...], gaps: bool
    ) -> None:
        super().__init__(command, channels, gaps)
        self._client = client
        self._closed = False
        self._lease: RedisLease | None = None
        self._stream: _core.Stream | None = None

    def __enter__(self) -> Subscription:
        self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        message = self.get()
        if message is None:
            raise StopIteration
        return message

    def get(self, timeout: float | None = None) -> Message | None:
        """Give the next message; None after ``timeout`` seconds without one, or close()."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._closed:
            if self._ready:
                return self._ready.pop(0)
            try:
                stream = self._open()
                if self._ready:
                    continue
                left = None if end is None else max(end - time.monotonic(), 0.001)
                try:
                    self._keep(stream.next(left))
                except Timeout:
                    return None
            except Error as error:
                self._recover(error)
        return None

    def add(self, *channels: Argument) -> None:
        """Subscribe to further channels."""
        self._channels.update(dict.fromkeys(channels))
        if self._lease is not None:
            self._lease.call(self._command, *channels)

    def remove(self, *channels: Argument) -> None:
        """Subscribe to these no more."""
        for channel in channels:
            self._channels.pop(channel, None)
        if self._lease is not None:
            self._lease.call(self._command.replace("SUBSCRIBE", "UNSUBSCRIBE"), *channels)

    def close(self) -> None:
        """End it; again is harmless."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        lease, self._lease = self._lease, None
        if stream is not None:
            stream.close()
        if lease is not None:
            lease.close()

    def _open(self) -> _core.Stream:
        if self._closed:
            raise Closed("The subscription was closed.")
        if self._stream is None:
            channels = self.channels
            lease = self._client.lease()
            stream = _core.Stream(lease, self._command, *channels)
            confirmed = 0
            while confirmed < len(channels):
                push = stream.next()
                if self._confirms(push):
                    confirmed += 1
                else:
                    self._keep(push)
            self._lease, self._stream = lease, stream
        return self._stream

    def _recover(self, error: Error) -> None:
        """Subscribe again, or raise if that is hopeless."""
        self._drop()
        if self._client.closed or not is_passing(error):
            raise error
        self._note_gap()
        pause = RETRY_S_MIN
        while not self._closed:
            try:
                self._open()
                return
            except Error as again:
                if self._client.closed or not is_passing(again):
                    raise
            time.sleep(pause)
            pause = min(pause * 2, RETRY_S_MAX)


class Redis(RedisCommands, Client):
    """Redis or Valkey, for plain threads; any number of them may use it at once."""

    __slots__ = ()

    def lease(self) -> RedisLease:
        """Give a connection of one's own, for as long as the ``with`` block."""
        return RedisLease(self)

    def transaction(self) -> Transaction:
        """Collect commands in a ``with`` block, to run them as one at its end."""
        return Transaction(client=self)

    def watch(self, *keys: Argument) -> Watch:
        """Watch keys: a transaction on the lease that this gives is not run if one was changed."""
        return Watch(self, keys)

    def subscribe(self, *channels: Argument, gaps: bool = False) -> Subscription:
        """Iterate over messages; ``gaps=True`` also tells where some were, or may be, missed."""
        return Subscription(self, "SUBSCRIBE", channels, gaps)

    def psubscribe(self, *patterns: Argument, gaps: bool = False) -> Subscription:
        """Iterate over the messages of all channels that match."""
        return Subscription(self, "PSUBSCRIBE", patterns, gaps)

    def ssubscribe(self, *channels: Argument, gaps: bool = False) -> Subscription:
        """Iterate over the messages of sharded channels."""
        return Subscription(self, "SSUBSCRIBE", channels, gaps)

    def scan_iter(
        self,
        match: Argument | None = None,
        count: int | None = None,
        type: Argument | None = None,
    ) -> Iterator[Any]:
        """Iterate over all keys; some may come twice."""
        yield from self._scan_all("SCAN", (), scan_words(match, count, type))

    def hscan_iter(
        self, key: Argument, match: Argument | None = None, count: int | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Iterate over a hash's fields and values."""
        flat = self._scan_all("HSCAN", (key,), scan_words(match, count))
        for field in flat:
            yield field, next(flat)

    def sscan_iter(
        self, key: Argument, match: Argument | None = None, count: int | None = None
    ) -> Iterator[Any]:
        """Iterate over a set's members."""
        yield from self._scan_all("SSCAN", (key,), scan_words(match, count))

    def zscan_iter(
        self, key: Argument, match: Argument | None = None, count: int | None = None
    ) -> Iterator[tuple[Any, float]]:
        """Iterate over a sorted set's members and scores."""
        flat = self._scan_all("ZSCAN", (key,), scan_words(match, count))
        for member in flat:
            yield member, float(next(flat))

    def _scan_all(
        self, word: str, key: tuple[Argument, ...], words: list[Argument]
    ) -> Iterator[Any]:
        cursor: Any = 0
        while True:
            cursor, found = self.call(word, *key, cursor, *words)
            yield from found
            if int(cursor) == 0:
                return
