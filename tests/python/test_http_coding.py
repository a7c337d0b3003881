"""Content codings: however a body is cut, undoing them costs what its size does."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import types
import zlib
from typing import Any

import pytest
import zstandard
from iokernel import http_coding
from iokernel.http_coding import CodingError, Decoding

LIMIT = 1 << 26
ZSTD_LARGE = """
import os, zstandard
from iokernel.http_coding import Decoding
body = os.urandom(16 << 20)
decoding = Decoding(["zstd"], 1 << 26)
assert decoding.feed(zstandard.compress(body)) == body
decoding.end()
"""


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_pieces(coding: str) -> None:
    compress: Any = gzip.compress if coding == "gzip" else zstandard.compress
    dice = random.Random(1)
    parts = [os.urandom(dice.choice([0, 1, 50, 20_000])) for _ in range(20)]
    body = b"".join(compress(part) for part in parts)
    for most in (1, 7, 1000, 100_000, len(body)):
        decoding = Decoding([coding], LIMIT)
        out, at = [], 0
        while at < len(body):
            n = dice.randint(1, most)
            out.append(decoding.feed(body[at : at + n]))
            at += n
        decoding.end()
        assert b"".join(out) == b"".join(parts)


def test_members_are_bounded() -> None:
    for coding, member in (("gzip", gzip.compress(b"")), ("zstd", zstandard.compress(b""))):
        most = http_coding.MEMBERS_MAX
        assert Decoding([coding], LIMIT).feed(member * most) == b""
        with pytest.raises(CodingError, match="more than 65536 pieces"):
            Decoding([coding], LIMIT).feed(member * (most + 2))


def test_members_cost_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What zlib hands back behind each member is little."""
    handed_back = 0

    class Counted:
        def __init__(self, wbits: int) -> None:
            self._inner = zlib.decompressobj(wbits)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def decompress(self, data: Any, most: int) -> bytes:
            nonlocal handed_back
            out = self._inner.decompress(data, most)
            handed_back += len(self._inner.unused_data)
            return out

    module = types.SimpleNamespace(decompressobj=Counted, error=zlib.error)
    monkeypatch.setattr(http_coding, "zlib", module)
    member = gzip.compress(b"")
    assert Decoding(["gzip"], LIMIT).feed(member * 20_000) == b""
    assert handed_back <= 20_000 * http_coding.GZIP_SLICE_BYTES


def test_large_zstd() -> None:
    """16 MiB take less than a second; it was some minutes."""
    subprocess.run([sys.executable, "-c", ZSTD_LARGE], check=True, timeout=100)
