"""Redis for asyncio: transactions, subscriptions, scans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel._core import Reply
from iokernel.errors import Closed, Error
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

from iokernel.asyncio.client import STREAK_MAX, Client, Lease


async def _all(replies: list[Reply[Any]]) -> list[Any]:
    """Wait for all; an exception stands in its reply's place."""
    return await asyncio.gather(*replies, return_exceptions=True)


class Transaction(RedisCommands, _core.Queue):
    """Collects commands and runs them as one at the end of the ``async with`` block.

    The commands are not awaited. ``results`` has their replies after the block. If one failed, the
    others were run all the same; the first failure is raised after ``results`` was set. Leaving the
    block by an exception runs nothing.
    """

    __slots__ = ("_client", "_lease", "results")

    def __new__(cls, client: Redis | None = None, lease: RedisLease | None = None) -> Transaction:
        """Make the empty queue; the arguments are __init__'s."""
        return super().__new__(cls)

    def __init__(self, client: Redis | None = None, lease: RedisLease | None = None) -> None:
        self._client = client
        self._lease = lease
        self.results: list[Any] | None = None

    async def __aenter__(self) -> Transaction:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if kind is None:
            await self._run()

    async def _run(self) -> None:
        if not self.commands:
            self.results = []
            return
        words = transaction_commands(self.commands)
        if self._lease is not None:
            replies = await _all(self._lease.call_many(words))
        else:
            assert self._client is not None
            async with self._client.lease() as lease:
                replies = await _all(lease.call_many(words))
        self.results = transaction_results(replies)
        raise_first(self.results)


class RedisLease(RedisCommands, Lease):
    """A connection to Redis of one's own."""

    __slots__ = ()

    def transaction(self) -> Transaction:
        """Collect commands, to run them as one on this connection."""
        return Transaction(lease=self)


class Watch:
    """Watches keys for the ``async with`` block, which gets the lease that does."""

    __slots__ = ("_client", "_keys", "_lease")

    def __init__(self, client: Redis, keys: tuple[Argument, ...]) -> None:
        self._client = client
        self._keys = keys
        self._lease: RedisLease | None = None

    async def __aenter__(self) -> RedisLease:
        self._lease = lease = self._client.lease()
        try:
            await lease.call("WATCH", *self._keys)
        except BaseException:
            lease.close()
            raise
        return lease

    async def __aexit__(self, *exc: object) -> None:
        if self._lease is not None:
            self._lease.close()


class Subscription(SubscriptionState):
    """An endless asynchronous iterator of messages; after its connection was lost it subscribes
    again by itself.

    One task at a time may wait for its next message.
    """

    __slots__ = ("__weakref__", "_client", "_closed", "_lease", "_stream", "_streak")

    def __init__(
        self, client: Redis, command: str, channels: tuple[Argument, ...], gaps: bool
    ) -> None:
        super().__init__(command, channels, gaps)
        self._client = client
        self._closed = False
        self._lease: RedisLease | None = None
        self._stream: _core.Stream | None = None
        self._streak = 0

    async def __aenter__(self) -> Subscription:
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        message = await self.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def get(self) -> Message | None:
        """Give the next message; None after close()."""
        self._streak += 1
        if self._streak % STREAK_MAX == 0:
            await asyncio.sleep(0)
        while not self._closed:
            if self._ready:
                return self._ready.pop(0)
            try:
                stream = await self._open()
                if not self._ready:
                    self._keep(await stream.next())
            except Error as error:
                if self._closed:
                    break
                await self._recover(error)
        return None

    async def add(self, *channels: Argument) -> None:
        """Subscribe to further channels."""
        self._channels.update(dict.fromkeys(channels))
        if self._lease is not None:
            await self._lease.call(self._command, *channels)

    async def remove(self, *channels: Argument) -> None:
        """Subscribe to these no more."""
        for channel in channels:
            self._channels.pop(channel, None)
        if self._lease is not None:
            word = self._command.replace("SUBSCRIBE", "UNSUBSCRIBE")
            await self._lease.call(word, *channels)

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

    async def _open(self) -> _core.Stream:
        if self._closed:
            raise Closed("The subscription was closed.")
        if self._stream is None:
            channels = self.channels
            lease = self._client.lease()
            stream = _core.Stream(lease, self._command, *channels)
            confirmed = 0
            while confirmed < len(channels):
                push = await stream.next()
                if self._confirms(push):
                    confirmed += 1
                else:
                    self._keep(push)
            self._lease, self._stream = lease, stream
        return self._stream

    async def _recover(self, error: Error) -> None:
        """Subscribe again, or raise if that is hopeless."""
        self._drop()
        if self._client.closed or not is_passing(error):
            raise error
        self._note_gap()
        pause = RETRY_S_MIN
        while not self._closed:
            try:
                await self._open()
                return
            except Error as again:
                if self._client.closed or not is_passing(again):
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_S_MAX)


class Redis(RedisCommands, Client):
    """Redis or Valkey, for asyncio; any number of event loops may use it at once."""

    __slots__ = ()

    def lease(self) -> RedisLease:
        """Give a connection of one's own, for as long as the ``async with`` block."""
        return RedisLease(self)

    def transaction(self) -> Transaction:
        """Collect commands in an ``async with`` block, to run them as one at its end."""
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

    async def scan_iter(
        self,
        match: Argument | None = None,
        count: int | None = None,
        type: Argument | None = None,
    ) -> AsyncIterator[Any]:
        """Iterate over all keys; some may come twice."""
        async for key in self._scan_all("SCAN", (), scan_words(match, count, type)):
            yield key

    async def hscan_iter(
        self, key: Argument, match: Argument | None = None, count: int | None = None
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Iterate over a hash's fields and values."""
        flat = self._scan_all("HSCAN", (key,), scan_words(match, count))
        async for field in flat:
            yield field, await anext(flat)

    async def sscan_iter(
        self, key: Argument, match: Argument | None = None, count: int | None = None
    ) -> AsyncIterator[Any]:
        """Iterate over a set's members."""
        async for member in self._scan_all("SSCAN", (key,), scan_words(match, count)):
            yield member

    async def zscan_iter(
        self, key: Argument, match: Argument | None = None, count: int | None = None
    ) -> AsyncIterator[tuple[Any, float]]:
        """Iterate over a sorted set's members and scores."""
        flat = self._scan_all("ZSCAN", (key,), scan_words(match, count))
        async for member in flat:
            yield member, float(await anext(flat))

    async def _scan_all(
        self, word: str, key: tuple[Argument, ...], words: list[Argument]
    ) -> AsyncIterator[Any]:
        cursor: Any = 0
        while True:
            cursor, found = await self.call(word, *key, cursor, *words)
            for item in found:
                yield item
            if int(cursor) == 0:
                return
