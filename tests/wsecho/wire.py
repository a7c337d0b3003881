"""One end of a WebSocket connection, octet by octet, for tests: it may send whatever it likes.

It reads strictly: a frame of the other side that RFC 6455 or RFC 7692 does not allow is a `Broken`.
"""

from __future__ import annotations

import base64
import hashlib
import select
import socket
import time
import zlib
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1 = 0x80, 0x40
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TAIL = b"\x00\x00\xff\xff"
PATIENCE_S = 20.0
MASK = b"\x37\xfa\x21\x3d"


class Broken(Exception):
    """The other side did what it must not do, or nothing for too long."""


def accept_key(key: bytes) -> bytes:
    """What answers a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def masked(payload: bytes) -> bytes:
    """The payload under our mask."""
    n = len(payload)
    key = (MASK * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(n, "big")


def frame(first: int, payload: bytes = b"", *, mask: bool = True) -> bytes:
    """A frame of that first octet."""
    n = len(payload)
    bit = 0x80 if mask else 0
    if n < 126:
        head = bytes([first, bit | n])
    elif n < 65536:
        head = bytes([first, bit | 126]) + n.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + n.to_bytes(8, "big")
    return head + (MASK + masked(payload) if mask else payload)


@dataclass(frozen=True)
class Deflate:
    """What both sides agreed on; bits and context of the one that sends, and of the other."""

    our_bits: int = 15
    their_bits: int = 15
    we_forget: bool = False
    they_forget: bool = False


def read_extension(value: str, *, client: bool) -> Deflate:
    """What an answer of a server means for the end that is a client, or the server itself."""
    name, *params = [part.strip() for part in value.split(";")]
    if name != "permessage-deflate":
        raise Broken(f"an extension that nobody offered: {value}")
    said = dict(param.partition("=")[::2] for param in params)
    bits = {
        "client": int(said.get("client_max_window_bits", "15")),
        "server": int(said.get("server_max_window_bits", "15")),
    }
    forgets = {side: f"{side}_no_context_takeover" in said for side in bits}
    we, they = ("client", "server") if client else ("server", "client")
    return Deflate(bits[we], bits[they], forgets[we], forgets[they])


class Wire:
    """A connection whose opening is done by `connect` or `accept`."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        self.sock = sock
        self.client = client
        self.deflate: Deflate | None = None
        self.protocol = ""
        self.messages: list[tuple[int, bytes]] = []  # and pongs, in their order
        self.n_frames = 0
        self.close_code: int | None = None  # 1005: without one
        self.reason = b""
        self.ended = False
        self._in = bytearray()
        self._out: list[bytes] = []
        self._parts: list[bytes] = []
        self._opcode = 0
        self._deflated = False
        self._deflater = zlib.compressobj(wbits=-15)
        self._inflater = zlib.decompressobj(wbits=-15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE_S)

    # ---- the opening ----------------------------------------------------------------------------

    def _read_head(self) -> tuple[str, dict[str, str]]:
        while b"\r\n\r\n" not in self._in:
            piece = self.sock.recv(65536)
            if not piece:
                raise Broken(f"the connection ended within its opening: {bytes(self._in)!r}")
            self._in += piece
        head, _, rest = bytes(self._in).partition(b"\r\n\r\n")
        self._in = bytearray(rest)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":")[::2] for line in lines)
        return first, {name.lower(): value.strip() for name, value in pairs}

    def _agree(self, value: str) -> None:
        if value:
            self.deflate = read_extension(value, client=self.client)
            self._deflater = self._new_deflater()
            self._inflater = zlib.decompressobj(wbits=-self.deflate.their_bits)

    def _new_deflater(self) -> zlib._Compress:
        bits = self.deflate.our_bits if self.deflate else 15
        return zlib.compressobj(wbits=-max(bits, 9))

    def open_as_client(
        self, host: str, target: str = "/", offer: str = "", protocol: str = ""
    ) -> None:
        """Ask for a WebSocket."""
        fields = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        fields += f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        self.sock.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {KEY.decode()}\r\n{fields}\r\n".encode()
        )
        first, reply = self._read_head()
        if not first.startswith("HTTP/1.1 101 "):
            raise Broken(f"not opened: {first}")
        if reply.get("sec-websocket-accept", "").encode() != accept_key(KEY):
            raise Broken("a wrong Sec-WebSocket-Accept")
        self.protocol = reply.get("sec-websocket-protocol", "")
        self._agree(reply.get("sec-websocket-extensions", ""))

    def open_as_server(self, answer: str = "") -> str:
        """Take a request for a WebSocket; its target."""
        first, request = self._read_head()
        method, target, _ = first.split(" ")
        if method != "GET" or request.get("upgrade", "").lower() != "websocket":
            raise Broken(f"no opening of a WebSocket: {first}")
        if answer and "permessage-deflate" not in request.get("sec-websocket-extensions", ""):
            raise Broken("compression is not offered")
        fields = f"Sec-WebSocket-Extensions: {answer}\r\n" if answer else ""
        accept = accept_key(request["sec-websocket-key"].encode()).decode()
        self.sock.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n".encode()
        )
        self._agree(answer)
        return target

    # ---- out ------------------------------------------------------------------------------------

    def frame(self, first: int, payload: bytes = b"") -> bytes:
        """A frame as this side has to send it."""
        return frame(first, payload, mask=self.client)

    def compress(self, payload: bytes) -> bytes:
        """A message's payload; to be sent with RSV1."""
        data = self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(TAIL) and self.deflate is not None
        if self.deflate.we_forget:
            self._deflater = self._new_deflater()
        return data[:-4]

    def queue(self, data: bytes, chop: int = 0) -> None:
        """Send when `pump` runs, in pieces of so many octets."""
        step = chop or max(len(data), 1)
        self._out += [data[i : i + step] for i in range(0, len(data), step)]

    # ---- in -------------------------------------------------------------------------------------

    def _inflate(self, data: bytes) -> bytes:
        if self.deflate is None:
            raise Broken("a compressed message, and no compression was agreed on")
        message = self._inflater.decompress(data + TAIL)
        if self._inflater.unused_data:
            raise Broken("octets behind the last block")
        if self.deflate.they_forget:
            self._inflater = zlib.decompressobj(wbits=-self.deflate.their_bits)
        return message

    def _take_message(self, first: int, payload: bytes) -> None:
        opcode = first & 15
        if opcode != CONTINUATION:
            self._opcode, self._deflated, self._parts = opcode, bool(first & RSV1), []
        elif self._opcode == 0 or first & RSV1:
            raise Broken("a part of no message, or with a reserved bit")
        self._parts.append(payload)
        if not first & FIN:
            return
        message = b"".join(self._parts)
        message = self._inflate(message) if self._deflated else message
        if self._opcode == TEXT:
            message.decode()
        self.messages.append((self._opcode, message))
        self._opcode = 0

    def _take_frame(self, first: int, payload: bytes) -> None:
        self.n_frames += 1
        opcode = first & 15
        if first & 0x30 or (first & RSV1 and (opcode > BINARY or self.deflate is None)):
            raise Broken("a reserved bit is set")
        if self.close_code is not None:
            raise Broken("a frame behind a close")
        if opcode in (TEXT, BINARY):
            if self._opcode:
                raise Broken("a message within another")
            self._take_message(first, payload)
        elif opcode == CONTINUATION:
            self._take_message(first, payload)
        elif not first & FIN or len(payload) > 125:
            raise Broken("a control frame in parts, or too large")
        elif opcode == PING:
            self.queue(self.frame(FIN | PONG, payload))
        elif opcode == PONG:
            self.messages.append((PONG, payload))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.reason = payload[2:]
            self.reason.decode()
        else:
            raise Broken(f"opcode {opcode}")

    def _take_frames(self) -> None:
        while len(self._in) >= 2:
            data, n, at = self._in, self._in[1] & 127, 2
            if n > 125:
                at = 4 if n == 126 else 10
                if len(data) < at:
                    return
                least = 126 if n == 126 else 65536
                n = int.from_bytes(data[2:at], "big")
                if n < least:
                    raise Broken("a length in more octets than it needs")
            is_masked = bool(data[1] & 0x80)
            if is_masked == self.client:
                raise Broken("a mask where none has to be, or none")
            at += 4 if is_masked else 0
            if len(data) < at + n:
                return
            payload = bytes(data[at : at + n])
            if is_masked:
                key = (bytes(data[at - 4 : at]) * (n // 4 + 1))[:n]
                number = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
                payload = number.to_bytes(n, "big")
            first = data[0]
            del self._in[: at + n]
            self._take_frame(first, payload)

    def pump(self, n_messages: int) -> None:
        """Send what is queued, and read, until there are so many messages, a close, or the end."""
        deadline = time.monotonic() + PATIENCE_S
        self.sock.setblocking(False)
        self._take_frames()
        while not self.ended and (
            self._out or (self.close_code is None and len(self.messages) < n_messages)
        ):
            left = deadline - time.monotonic()
            readable, writable, _ = select.select(
                [self.sock], [self.sock] if self._out else [], [], max(left, 0)
            )
            if not readable and not writable:
                raise Broken(f"nothing happens: {len(self.messages)} messages, {self.close_code}")
            try:
                if readable:
                    piece = self.sock.recv(1 << 18)
                    self.ended = not piece
                    self._in += piece
                    self._take_frames()
                if writable and not self.ended and self.close_code is None:
                    sent = self.sock.send(self._out[0])
                    self._out[0] = self._out[0][sent:]
                    if not self._out[0]:
                        del self._out[0]
            except ConnectionError:
                self.ended = True
            if self.close_code is not None:
                self._out.clear()

    def wait_end(self) -> None:
        """Until the other side closes the connection."""
        self.sock.settimeout(PATIENCE_S)
        try:
            while not self.ended:
                self.ended = not self.sock.recv(65536)
        except ConnectionError:
            self.ended = True
        except TimeoutError:
            raise Broken("the connection stays open behind the closing") from None

    def close(self) -> None:
        """End it."""
        self.sock.close()
