"""Content codings of HTTP: gzip, deflate, br, zstd. Which there are depends on what is installed.

What comes out is bounded, whatever goes in: a body of a few kilobytes may stand for gigabytes.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from iokernel.errors import Error

brotli: Any = None
zstandard: Any = None
with contextlib.suppress(ImportError):
    import brotli  # type: ignore[no-redef, import-untyped, unused-ignore]
with contextlib.suppress(ImportError):
    import zstandard  # type: ignore[no-redef, unused-ignore]

CODINGS_MAX = 4
"""That are applied to one body: nobody needs two."""
ZSTD_WINDOW_BYTES = 8 << 20
"""RFC 9659: more is not allowed in HTTP."""
ZSTD_SLICE_BYTES = 64
"""Its decoder has no bound of its own. 4 octets may stand for a block of 128 KiB, and so these for
2 MiB: beyond the bound there is no more than that.
"""


MEMBERS_MAX = 65536
"""Of gzip, or frames of zstd, in one body. Each costs some microseconds, however little is in it; a
file that was compressed in blocks of 64 KiB has 16,000 of them to the gigabyte.
"""
GZIP_SLICE_BYTES = 16384
"""What zlib is given at a time: behind a member it copies what is left, and members have 20 octets.
"""


class CodingError(Error, ValueError):
    """The body is not what its Content-Encoding says, or is too large without it."""


def _too_many(most: int) -> CodingError:
    return CodingError(
        f"the body is compressed in more than {most} pieces", code="IOK_ELIMIT", outcome="done"
    )


class Decoder(Protocol):
    """One coding of one body."""

    def feed(self, data: bytes, room: int) -> bytes:
        """Take the next octets; give at most room of them decoded, and one more if there are."""

    def ended(self) -> bool:
        """Whether the body is complete."""


class _Zlib:
    """RFC 9110, 8.4.1.2 and 8.4.1.3."""

    def __init__(self, gzip: bool) -> None:
        self._gzip = gzip
        self._inner = zlib.decompressobj(31) if gzip else None
        self._first = b""
        self._members = 0

    def feed(self, data: bytes, room: int) -> bytes:
        if self._inner is None:
            self._first += data
            if len(self._first) < 2:
                return b""
            # Some send it without zlib's header, which says so by itself: RFC 1950, 2.2.
            data, first = self._first, int.from_bytes(self._first[:2], "big")
            self._inner = zlib.decompressobj(
                15 if first & 0x0F00 == 0x0800 and first % 31 == 0 else -15
            )
        parts, size, at, view = [], 0, 0, memoryview(data)
        while at < len(view) and size <= room:
            if self._inner.eof:
                if not self._gzip:
                    break
                self._begin_member()
            piece = view[at : at + GZIP_SLICE_BYTES]
            part = self._inner.decompress(piece, room + 1 - size)
            at += len(piece) - len(self._inner.unused_data)  # what is not consumed is too much
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _begin_member(self) -> None:
        """RFC 1952, 2.2: members may follow one another."""
        self._members += 1
        if self._members > MEMBERS_MAX:
            raise _too_many(MEMBERS_MAX)
        self._inner = zlib.decompressobj(31)

    def ended(self) -> bool:
        return self._inner is not None and self._inner.eof


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    def feed(self, data: bytes, room: int) -> bytes:
        # One that it has ended before takes nothing more, and says so by an error.
        return bytes(self._inner.process(data, output_buffer_limit=room + 1))

    def ended(self) -> bool:
        return bool(self._inner.is_finished())


class _Zstd:
    """RFC 8878."""

    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._inner = self._decoder.decompressobj()
        self._frames = 0

    def feed(self, data: bytes, room: int) -> bytes:
        parts, size, at, view = [], 0, 0, memoryview(data)
        while at < len(view) and size <= room:
            if self._inner.eof:  # frames may follow one another
                self._frames += 1
                if self._frames > MEMBERS_MAX:
                    raise _too_many(MEMBERS_MAX)
                self._inner = self._decoder.decompressobj()
            piece = view[at : at + ZSTD_SLICE_BYTES]
            part = self._inner.decompress(piece)
            at += len(piece) - len(self._inner.unused_data)
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def ended(self) -> bool:
        return bool(self._inner.eof)


KNOWN: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib(True),
    "x-gzip": lambda: _Zlib(True),
    "deflate": lambda: _Zlib(False),
}
FAULTS: tuple[type[Exception], ...] = (zlib.error,)
ACCEPTED = "gzip, deflate"
if brotli is not None and hasattr(brotli.Decompressor, "can_accept_more_data"):  # from 1.2 on
    KNOWN["br"] = _Brotli
    FAULTS += (brotli.error,)
    ACCEPTED += ", br"
if zstandard is not None:
    KNOWN["zstd"] = _Zstd
    FAULTS += (zstandard.ZstdError,)
    ACCEPTED += ", zstd"


class Decoding:
    """The codings of a body, undone part by part; each part gives at most limit octets."""

    __slots__ = ("_decoders", "_limit", "_some")

    def __init__(self, codings: list[str], limit: int) -> None:
        """Take them in the order in which they were applied."""
        self._decoders = [KNOWN[coding]() for coding in reversed(codings)]
        self._limit = limit
        self._some = False

    def feed(self, data: bytes) -> bytes:
        """Give what the next octets stand for."""
        self._some = self._some or bool(data)
        for decoder in self._decoders:
            try:
                data = decoder.feed(data, self._limit) if data else data
            except FAULTS as error:
                raise CodingError(
                    f"the body is not what its Content-Encoding says: {error}", outcome="done"
                ) from None
            if len(data) > self._limit:
                raise CodingError(
                    f"the body is larger than max_reply={self._limit} bytes without its "
                    "Content-Encoding",
                    code="IOK_ELIMIT",
                    outcome="done",
                )
        return data

    def end(self) -> None:
        """Raise if something is missing; a body of nothing at all is whole."""
        if self._some and not all(decoder.ended() for decoder in self._decoders):
            raise CodingError(
                "the body ends in the midst of what its Content-Encoding says", outcome="done"
            )


def codings(value: str) -> list[str]:
    """Give what is to be undone by a Content-Encoding; nothing, if we cannot do all of it."""
    names = [name.strip().lower() for name in value.split(",")]
    names = [name for name in names if name and name != "identity"]
    known = len(names) <= CODINGS_MAX and all(name in KNOWN for name in names)
    return names if known else []


def decoding_of(headers: Any, status: int, limit: int) -> Decoding | None:
    """Give what undoes the codings of a body with these fields; None if there is nothing to do."""
    value = headers.get("content-encoding")
    names = codings(value) if value and status != 206 else []  # a range is no whole of anything
    return Decoding(names, limit) if names else None
