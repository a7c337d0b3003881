"""Streams of PostgreSQL for plain threads: cursors, COPY, LISTEN."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.errors import Closed, Error, Timeout
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
from iokernel.sync.bodies import pieces

if TYPE_CHECKING:
    from iokernel.sync.postgres import Postgres, PostgresLease


class Cursor:
    """The rows of a statement, of which a batch at a time is asked for.

    ``with`` closes it, also when not all rows were taken. Without it, it lives as long as its
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

    def __enter__(self) -> Cursor:
        if self._client is not None:
            if self._lease is not None:
                raise RuntimeError("the cursor was opened already")
            self._lease = lease = self._client.lease()
            try:
                lease.call("BEGIN")
            except BaseException:
                lease.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        lease = self._lease
        assert lease is not None
        if self._client is None:
            if kind is None or issubclass(kind, Exception):
                self.close()
            return
        try:
            if kind is None:
                lease.call("COMMIT")
        finally:
            lease.close()  # rolls back what is left

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        if not self._rows:
            self._rows = self.fetch()
            self._rows.reverse()
        if not self._rows:
            raise StopIteration
        return self._rows.pop()

    def fetch(self, rows: int | None = None) -> list[Record]:
        """Give the next rows, at most as many as a batch has; none at the end."""
        lease = self._lease
        if lease is None:
            raise RuntimeError("a client's cursor is used in a block: with db.cursor(...) as c")
        limit = self._batch if rows is None else check_batch(rows)
        if self._done:
            return []
        if self._name:
            reply = lease.call(["cursor", self._name, limit])
        else:
            self._name = cursor_name()
            reply = lease.call(["cursor", self._name, limit], self._sql, *self._args)
        self._done = reply[3] is not None
        return records_of(reply)

    def close(self) -> None:
        """Take no more rows; again is harmless."""
        lease = self._lease
        self._rows = []
        if self._name and not self._done and lease is not None and not lease.closed:
            self._done = True
            lease.call(["cursor", self._name, 0])
        self._done = True


def _send(stream: _core.Stream, source: Any) -> None:
    gathered = bytearray()
    for piece in pieces(source):
        data = piece.encode() if isinstance(piece, str) else piece
        if len(data) < PART_BYTES and len(gathered) + len(data) < PART_BYTES:
            gathered += data
            continue
        if gathered:
            data, gathered = bytes(gathered) + bytes(data), bytearray()
        stream.send(data)
    stream.send(bytes(gathered), end=True)


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

    def __enter__(self) -> CopyOut:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.tag:
            raise StopIteration
        if self._stream is None:
            if self._lease is None:
                assert self._client is not None
                self._lease = self._client.lease()
            self._stream = _core.Stream(self._lease, self._sql, parts=True, timeout=self._timeout)
        try:
            chunk = self._stream.next()
        except BaseException:
            self.close()
            raise
        if chunk is None:
            self.tag = str(self._stream.result[3])
            self.close()
            raise StopIteration
        return bytes(chunk)

    def records(self) -> Iterator[tuple[str | None, ...]]:
        """Iterate over rows in the text format, as tuples of str and None."""
        for chunk in self:
            yield from decode_records(chunk.splitlines())

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

    def __enter__(self) -> Listener:
        self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Notification]:
        return self

    def __next__(self) -> Notification:
        message = self.get()
        if message is None:
            raise StopIteration
        return message

    def get(self, timeout: float | None = None) -> Notification | None:
        """Give the next notification; None after ``timeout`` seconds without one, or close()."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._closed:
            if self._ready:
                return self._ready.pop(0)
            try:
                stream = self._open()
                left = None if end is None else max(end - time.monotonic(), 0.001)
                try:
                    self._keep(stream.next(left))
                except Timeout:
                    return None
            except Error as error:
                self._recover(error)
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

    def _open(self) -> _core.Stream:
        if self._closed:
            raise Closed("The listener was closed.")
        if self._stream is None:
            lease = self._client.lease()
            first = next(iter(self._channels))
            stream = _core.Stream(lease, f"LISTEN {first}")
            try:
                for channel in self._channels:  # the first once more: its answer says that both are
                    lease.call(f"LISTEN {channel}")
            except BaseException:
                stream.close()
                lease.close()
                raise
            self._lease, self._stream = lease, stream
        return self._stream

    def _recover(self, error: Error) -> None:
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
                self._open()
                return
            except Error as again:
                if self._client.closed or not is_passing(again):
                    raise
            time.sleep(pause)
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

    def copy_in(
        self,
        sql: str,
        source: str | bytes | bytearray | memoryview | Iterable[bytes] | Any,
        *,
        timeout: float | None = None,
    ) -> str:
        """Run a COPY ... FROM STDIN with bytes, a file, or an iterator of bytes as its data.

        ``timeout`` is for each part and for the answer. Gives the command tag.
        """
        client, lease = self._places()
        if lease is None:
            assert client is not None
            with client.lease() as own:
                return own.copy_in(sql, source, timeout=timeout)
        stream = _core.Stream(lease, sql, body=True, timeout=timeout)
        try:
            _send(stream, source)
        except Exception as error:
            why = f"the program's source failed: {type(error).__name__}"
            try:
                stream.fail(why)
            except Error:
                stream.next()  # it has ended already: raises why
                raise
            with contextlib.suppress(Error):  # as we have made it fail
                stream.next()
            raise
        except BaseException:
            stream.close()
            raise
        stream.next()
        return str(stream.result[3])

    def copy_records(
        self,
        table: str | tuple[str, ...],
        records: Iterable[Iterable[Any]],
        *,
        columns: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> str:
        """Insert records by COPY, in its text format. Gives the command tag."""
        sql = copy_statement(table, columns)
        return self.copy_in(sql, map(encode_record, records), timeout=timeout)
