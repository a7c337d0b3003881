"""Streams of PostgreSQL for asyncio: cursors, COPY, LISTEN."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.asyncio.bodies import lasting, pieces
from iokernel.errors import Closed, Error
from iokernel.postgres import Record
from iokernel.postgres import records as records_of
from iokernel.postgres_streams import (
    BATCH_ROWS,
    GAP,
    PART_BYTES,
    RETRY_S_MAX,
    RETRY_S_MIN,
    Notification,
    check_batch,
    copy_statement,
    cursor_name,
    decode_records,
    encode_record,
    is_passing,
    notification,
    quote,
)

if TYPE_CHECKING:
    from iokernel.asyncio.postgres import Postgres, PostgresLease


class Cursor:
    """The rows of a statement, of which a batch at a time is asked for.

    ``async with`` closes it, also when not all rows were taken. Without it, it lives as long as its
    transaction. Of a client it makes a transaction of its own, and needs the block.
    """

    __slots__ = ("_args", "_batch", "_client", "_done", "_lease", "_name", "_rows", "_sql")

    def __init__(
        self, client: Postgres | None, lease: PostgresLease | None, sql: str, args: Any, batch: int
    ) -> None:
        self._client = client
        self._lease = lease
        self._sql = sql
        self._args = args
        self._batch = check_batch(batch)
        self._name = ""
        self._rows: list[Record] = []
        self._done = False

    async def __aenter__(self) -> Cursor:
        if self._client is not None:
            if self._lease is not None:
                raise RuntimeError("the cursor was opened already")
            self._lease = lease = self._client.lease()
            try:
                await lease.call("BEGIN")
            except BaseException:
                lease.close()
                raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        lease = self._lease
        assert lease is not None
        if self._client is None:
            if kind is None or issubclass(kind, Exception):
                await self.close()
            return
        try:
            if kind is None:
                await lease.call("COMMIT")
        finally:
            lease.close()  # rolls back what is left

    def __aiter__(self) -> AsyncIterator[Record]:
        return self

    async def __anext__(self) -> Record:
        if not self._rows:
            self._rows = await self.fetch()
            self._rows.reverse()
        if not self._rows:
            raise StopAsyncIteration
        return self._rows.pop()

    async def fetch(self, rows: int | None = None) -> list[Record]:
        """Give the next rows, at most as many as a batch has; none at the end."""
        lease = self._lease
        if lease is None:
            raise RuntimeError(
                "a client's cursor is used in a block: async with db.cursor(...) as c"
            )
        limit = self._batch if rows is None else check_batch(rows)
        if self._done:
            return []
        if self._name:
            reply = await lease.call(["cursor", self._name, limit])
        else:
            self._name = cursor_name()
            reply = await lease.call(["cursor", self._name, limit], self._sql, *self._args)
        self._done = reply[3] is not None
        return records_of(reply)

    async def close(self) -> None:
        """Take no more rows; again is harmless."""
        lease = self._lease
        self._rows = []
        if self._name and not self._done and lease is not None and not lease.closed:
            self._done = True
            await lease.call(["cursor", self._name, 0])
        self._done = True


async def _rows(records: Any) -> AsyncIterator[bytes]:
    if hasattr(records, "__aiter__"):
        async for record in records:
            yield encode_record(record)
    else:
        for record in records:
            yield encode_record(record)


async def _send(stream: _core.Stream, source: Any) -> None:
    pending = None
    gathered = bytearray()
    async for piece in pieces(source):
        data = piece.encode() if isinstance(piece, str) else piece
        if len(data) < PART_BYTES and len(gathered) + len(data) < PART_BYTES:
            gathered += data
            continue
        if gathered:
            data, gathered = bytes(gathered) + bytes(data), bytearray()
        if pending is not None:
            await pending
        pending = stream.send(lasting(data))
    if pending is not None:
        await pending
    await stream.send(bytes(gathered), end=True)


class CopyOut:
    """What a COPY TO STDOUT gives: an iterator of chunks of bytes, each of whole rows."""

    __slots__ = ("_client", "_lease", "_own", "_sql", "_stream", "_timeout", "tag")

    def __init__(
        self, client: Postgres | None, lease: PostgresLease | None, sql: str, timeout: float | None
    ) -> None:
        self._client = client
        self._lease = lease
        self._own = lease is None
        self._sql = sql
        self._timeout = timeout
        self._stream: _core.Stream | None = None
        self.tag = ""
        """At the end, such as ``"COPY 5"``."""

    async def __aenter__(self) -> CopyOut:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.tag:
            raise StopAsyncIteration
        if self._stream is None:
            if self._lease is None:
                assert self._client is not None
                self._lease = self._client.lease()
            self._stream = _core.Stream(self._lease, self._sql, parts=True, timeout=self._timeout)
        try:
            chunk = await self._stream.next()
        except BaseException:
            self.close()
            raise
        if chunk is None:
            self.tag = str(self._stream.result[3])
            self.close()
            raise StopAsyncIteration
        return bytes(chunk)

    async def records(self) -> AsyncIterator[tuple[str | None, ...]]:
        """Iterate over rows in the text format, as tuples of str and None."""
        async for chunk in self:
            for record in decode_records(chunk.splitlines()):
                yield record

    def close(self) -> None:
        """End it, wherever it is; again is harmless."""
        if self._stream is not None:
            self._stream.close()
        if self._own and self._lease is not None:
            self._lease.close()


class Listener:
    """An endless iterator of notifications; after its connection was lost it listens again by
    itself.
    """

    __slots__ = (
        "__weakref__",
        "_channels",
        "_client",
        "_closed",
        "_gap_messages",
        "_lease",
        "_notices",
        "_ready",
        "_stream",
        "dropped",
        "gaps",
    )

    def __init__(
        self,
        client: Postgres,
        channels: tuple[str, ...],
        gaps: bool,
        notices: Callable[[dict[str, Any]], object] | None,
    ) -> None:
        if not channels:
            raise TypeError("listen() takes at least one channel")
        self._client = client
        self._channels = dict.fromkeys(quote(channel) for channel in channels)
        self._gap_messages = gaps
        self._notices = notices
        self._closed = False
        self._ready: list[Notification] = []
        self._lease: PostgresLease | None = None
        self._stream: _core.Stream | None = None
        self.gaps = 0
        """How often the connection was lost, and with it perhaps notifications."""
        self.dropped = 0
        """How many were dropped until here, as the program was slow."""

    async def __aenter__(self) -> Listener:
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Notification]:
        return self

    async def __anext__(self) -> Notification:
        message = await self.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def get(self) -> Notification | None:
        """Give the next notification; None after close()."""
        while not self._closed:
            if self._ready:
                return self._ready.pop(0)
            try:
                stream = await self._open()
                self._keep(await stream.next())
            except Error as error:
                if self._closed:
                    break
                await self._recover(error)
        return None

    def close(self) -> None:
        """End it; again is harmless."""
        self._closed = True
        self._drop()

    def _keep(self, message: Any) -> None:
        if isinstance(message, list) and message[0] == "notice":
            if self._notices is not None:
                self._notices(message[1])
            return
        one = notification(message)
        if one is None:
            return
        if one.channel is None:
            self.dropped += one.pid
            if not self._gap_messages:
                return
        self._ready.append(one)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        lease, self._lease = self._lease, None
        if stream is not None:
            stream.close()
        if lease is not None:
            lease.close()

    async def _open(self) -> _core.Stream:
        if self._closed:
            raise Closed("The listener was closed.")
        if self._stream is None:
            lease = self._client.lease()
            first = next(iter(self._channels))
            stream = _core.Stream(lease, f"LISTEN {first}")
            try:
                for channel in self._channels:  # the first once more: its answer says that both are
                    await lease.call(f"LISTEN {channel}")
            except BaseException:
                stream.close()
                lease.close()
                raise
            self._lease, self._stream = lease, stream
        return self._stream

    async def _recover(self, error: Error) -> None:
        """Listen again, or raise if that is hopeless."""
        self._drop()
        if self._client.closed or not is_passing(error):
            raise error
        self.gaps += 1
        if self._gap_messages:
            self._ready.append(GAP)
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


class PostgresStreams:
    """Cursors and COPY, of a client (on a connection taken for it) and of a lease (on its own)."""

    __slots__ = ()

    def _places(self) -> tuple[Postgres | None, PostgresLease | None]:
        raise NotImplementedError

    def cursor(self, sql: str, *args: Any, batch: int = BATCH_ROWS) -> Cursor:
        """Iterate over rows in batches; on a lease within a transaction."""
        return Cursor(*self._places(), sql, args, batch)

    def copy_out(self, sql: str, *, timeout: float | None = None) -> CopyOut:
        """Iterate over the bytes of a COPY ... TO STDOUT; ``timeout`` is for each chunk."""
        return CopyOut(*self._places(), sql, timeout)

    async def copy_in(
        self,
        sql: str,
        source: str | bytes | bytearray | memoryview | Iterable[bytes] | AsyncIterable[bytes] | Any,
        *,
        timeout: float | None = None,
    ) -> str:
        """Run a COPY ... FROM STDIN with bytes, a file, or an iterator of bytes as its data.

        ``timeout`` is for each part and for the answer. Gives the command tag.
        """
        client, lease = self._places()
        if lease is None:
            assert client is not None
            async with client.lease() as own:
                return await own.copy_in(sql, source, timeout=timeout)
        stream = _core.Stream(lease, sql, body=True, timeout=timeout)
        try:
            await _send(stream, source)
        except Exception as error:
            why = f"the program's source failed: {type(error).__name__}"
            try:
                await stream.fail(why)
            except Error:
                await stream.next()  # it has ended already: raises why
                raise
            with contextlib.suppress(Error):  # as we have made it fail
                await stream.next()
            raise
        except BaseException:
            stream.close()
            raise
        await stream.next()
        return str(stream.result[3])

    async def copy_records(
        self,
        table: str | tuple[str, ...],
        records: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        *,
        columns: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> str:
        """Insert records by COPY, in its text format. Gives the command tag."""
        sql = copy_statement(table, columns)
        return await self.copy_in(sql, _rows(records), timeout=timeout)
