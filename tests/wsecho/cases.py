"""What a WebSocket peer that echoes has to do, case by case, in both roles.

The cases are those of the published list of the Autobahn test suite, by its numbers: 1 framing,
2 pings, 3 reserved bits, 4 opcodes, 5 fragmentation, 6 UTF-8, 7 closing, 9 limits (shorter here),
10 automatic fragmentation, 12 and 13 permessage-deflate (fewer sizes here). They are strict where
it allows more than one behaviour.

    cases.py HOST:PORT[/TARGET] [PREFIX...]     against an echo server; prints what fails
"""

from __future__ import annotations

import dataclasses
import json
import random
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from wsecho.wire import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT, Broken, Wire

Message = tuple[int, bytes]
Step = tuple[int, bytes]  # a frame: its first octet and payload

PROTOCOL_ERROR = frozenset({1002})
BAD_DATA = frozenset({1007})
NORMAL = frozenset({1000})
NO_CODE = frozenset({1005})


@dataclass(frozen=True)
class Case:
    """Frames to send, what comes back, and how it ends."""

    name: str
    send: list[Step]
    gets: list[Message] = field(default_factory=list)
    # The peer closes with one of these: because it has to, or as an answer to a close that is sent.
    # None: it stays open, and we close it.
    code: frozenset[int] | None = None
    chop: int = 0  # octets that are sent at a time; 0: a whole frame
    offer: str = ""  # of compression; what a server answers is `answer`
    answer: str = ""
    compress: bool = False  # data frames are compressed
    fragment: int = 0  # and sent in parts of so many octets


def text(payload: str | bytes) -> Step:
    """A whole text."""
    return FIN | TEXT, payload.encode() if isinstance(payload, str) else payload


def ping(payload: bytes = b"") -> Step:
    """A ping."""
    return FIN | PING, payload


def close(code: int = 1000, reason: bytes = b"") -> Step:
    """A close frame."""
    return FIN | CLOSE, code.to_bytes(2, "big") + reason


def parts(kind: int, pieces: list[bytes]) -> list[Step]:
    """A message in fragments."""
    last = len(pieces) - 1
    return [
        ((FIN if i == last else 0) | (kind if i == 0 else CONTINUATION), piece)
        for i, piece in enumerate(pieces)
    ]


def octets(data: bytes) -> list[bytes]:
    """Each by itself."""
    return [data[i : i + 1] for i in range(len(data))]


# ---- the sections -------------------------------------------------------------------------------


def framing() -> Iterator[Case]:
    sizes = [(n, 0) for n in (0, 125, 126, 127, 128, 65535, 65536)] + [(65536, 997)]
    for group, kind, letter in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, (size, chop) in enumerate(sizes, 1):
            message = letter * size
            yield Case(f"1.{group}.{number}", [(FIN | kind, message)], [(kind, message)], chop=chop)


def pings() -> Iterator[Case]:
    ten = [b"payload-%d" % i for i in range(10)]
    yield Case("2.1", [ping()], [(PONG, b"")])
    yield Case("2.2", [ping(b"Hello, world!")], [(PONG, b"Hello, world!")])
    yield Case(
        "2.3",
        [ping(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
        [(PONG, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
    )
    yield Case("2.4", [ping(b"\xfe" * 125)], [(PONG, b"\xfe" * 125)])
    yield Case("2.5", [ping(b"\xfe" * 126)], code=PROTOCOL_ERROR)
    yield Case("2.6", [ping(b"\xfe" * 125)], [(PONG, b"\xfe" * 125)], chop=1)
    yield Case("2.7", [(FIN | PONG, b"")])
    yield Case("2.8", [(FIN | PONG, b"unsolicited")])
    yield Case("2.9", [(FIN | PONG, b"unsolicited"), ping(b"p")], [(PONG, b"p")])
    for name, chop in (("2.10", 0), ("2.11", 1)):
        yield Case(name, [ping(p) for p in ten], [(PONG, p) for p in ten], chop=chop)


def reserved_bits() -> Iterator[Case]:
    hello = (TEXT, b"Hello, world!")
    good = text("Hello, world!")
    yield Case("3.1", [(FIN | 0x40 | TEXT, b"Hello, world!")], code=PROTOCOL_ERROR)
    for name, rsv, chop in (("3.2", 0x20, 0), ("3.3", 0x30, 0), ("3.4", 0x30, 1)):
        bad = (FIN | rsv | TEXT, b"Hello, world!")
        yield Case(name, [good, bad, ping()], [hello], code=PROTOCOL_ERROR, chop=chop)
    yield Case("3.5", [(FIN | 0x50 | BINARY, b"\xfe" * 8)], code=PROTOCOL_ERROR)
    yield Case("3.6", [(FIN | 0x60 | PING, b"Hello, world!")], code=PROTOCOL_ERROR)
    yield Case("3.7", [(FIN | 0x70 | CLOSE, b"")], code=PROTOCOL_ERROR)


def opcodes() -> Iterator[Case]:
    hello = (TEXT, b"Hello, world!")
    good = text("Hello, world!")
    for group, first in ((1, 3), (2, 11)):
        for number in range(5):
            bad = (FIN | (first + number), b"reserved" if number % 2 else b"")
            name = f"4.{group}.{number + 1}"
            if number < 2:
                yield Case(name, [bad], code=PROTOCOL_ERROR)
            else:
                chop = 1 if number == 4 else 0
                yield Case(name, [good, bad, ping()], [hello], code=PROTOCOL_ERROR, chop=chop)


def fragments() -> Iterator[Case]:
    one, two = b"fragment1", b"fragment2"
    both = (TEXT, one + two)
    cut = [(TEXT, one), (FIN | CONTINUATION, two)]
    between = [(TEXT, one), ping(b"ping"), (FIN | CONTINUATION, two)]
    yield Case("5.1", [(PING, one), (FIN | CONTINUATION, two)], code=PROTOCOL_ERROR)
    yield Case("5.2", [(PONG, one), (FIN | CONTINUATION, two)], code=PROTOCOL_ERROR)
    for name, chop in (("5.3", 0), ("5.4", 9), ("5.5", 1)):
        yield Case(name, cut, [both], chop=chop)
    for name, chop in (("5.6", 0), ("5.7", 9), ("5.8", 1)):
        yield Case(name, between, [(PONG, b"ping"), both], chop=chop)
    number = 9
    for fin in (FIN, 0):
        for chop in (0, 9, 1):
            stray = (fin | CONTINUATION, b"non-continuation payload")
            yield Case(
                f"5.{number}", [stray, text("Hello, world!")], code=PROTOCOL_ERROR, chop=chop
            )
            number += 1
    stray = (CONTINUATION, b"fragment3")
    yield Case("5.15", [*cut, stray, text("fragment4")], [both], code=PROTOCOL_ERROR)
    for name, fin in (("5.16", 0), ("5.17", FIN)):
        yield Case(name, [(fin | CONTINUATION, one), *cut] * 2, code=PROTOCOL_ERROR)
    yield Case("5.18", [(TEXT, one), (FIN | TEXT, two)], code=PROTOCOL_ERROR)
    five = [b"fragment%d" % i for i in range(1, 6)]
    mixed = parts(TEXT, five)
    mixed[2:2] = [ping(b"pongme 1!")]
    mixed[5:5] = [ping(b"pongme 2!")]
    gets = [(PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"".join(five))]
    yield Case("5.19", mixed, gets)
    yield Case("5.20", mixed, gets, chop=1)


GREEK = "κόσμε".encode()
MIXED = "Hello-µ@ßöäüàá-UTF-8!!".encode()


def utf8_fragments() -> Iterator[Case]:
    for number, pieces in enumerate(
        ([b""], [b"", b"", b""], [b"", b"middle frame payload", b""]), 1
    ):
        yield Case(f"6.1.{number}", parts(TEXT, pieces), [(TEXT, b"".join(pieces))])
    for number, pieces in enumerate(
        ([MIXED], [MIXED[:12], MIXED[12:]], octets(MIXED), octets(GREEK)), 1
    ):
        yield Case(f"6.2.{number}", parts(TEXT, pieces), [(TEXT, b"".join(pieces))])
    bad = GREEK + b"\xed\xa0\x80edited"
    yield Case("6.3.1", [text(bad)], code=BAD_DATA)
    yield Case("6.3.2", parts(TEXT, octets(bad)), code=BAD_DATA)
    # The rest of the message never comes: it has to be refused at its first wrong octet.
    too_far = GREEK + b"\xf4\x90\x80\x80"
    yield Case("6.4.1", [(TEXT, GREEK), (CONTINUATION, b"\xf4\x90\x80\x80")], code=BAD_DATA)
    yield Case("6.4.2", [(TEXT, GREEK + b"\xf4"), (CONTINUATION, b"\x90")], code=BAD_DATA)
    yield Case("6.4.3", [(TEXT, too_far)], code=BAD_DATA, chop=1)
    yield Case("6.4.4", [(TEXT, too_far[:-2])], code=BAD_DATA, chop=7)


def utf8_texts() -> Iterator[tuple[int, list[tuple[bool, bytes]]]]:
    """For each group of 6.5 and above: whether it is valid, and what it is."""
    yield 5, [(True, GREEK), (True, MIXED)]
    # In the suite's spelling, whose second letter has three octets.
    greek = "\u03ba\u1f79\u03c3\u03bc\u03b5"
    whole = {len(greek[:i].encode()) for i in range(1, len(greek) + 1)}
    yield 6, [(n in whole, greek.encode()[:n]) for n in range(1, len(greek.encode()) + 1)]
    yield 7, [(True, chr(c).encode()) for c in (0, 0x80, 0x800, 0x10000)]
    yield 8, [(False, b"\xf8\x88\x80\x80\x80"), (False, b"\xfc\x84\x80\x80\x80\x80")]
    yield 9, [(True, chr(c).encode()) for c in (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)]
    yield (
        10,
        [
            (False, b)
            for b in (b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf")
        ],
    )
    yield (
        11,
        [
            *((True, chr(c).encode()) for c in (0xD7FF, 0xE000, 0xFFFD, 0x10FFFF)),
            (False, b"\xf4\x90\x80\x80"),
        ],
    )
    yield (
        12,
        [
            (False, b"\x80"),
            (False, b"\xbf"),
            *((False, b"\x80\xbf" * n) for n in range(1, 6)),
            (False, bytes(range(0x80, 0xC0))),
        ],
    )
    starts = [
        range(0xC0, 0xE0),
        range(0xE0, 0xF0),
        range(0xF0, 0xF8),
        range(0xF8, 0xFC),
        range(0xFC, 0xFE),
    ]
    yield 13, [(False, b" ".join(bytes([c]) for c in r) + b" ") for r in starts]
    cut = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]
    cut += [b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
    yield 14, [(False, c) for c in cut]
    yield 15, [(False, b"".join(cut))]
    yield 16, [(False, b"\xfe"), (False, b"\xff"), (False, b"\xfe\xfe\xff\xff")]
    yield (
        17,
        [
            (False, b)
            for b in (
                b"\xc0\xaf",
                b"\xe0\x80\xaf",
                b"\xf0\x80\x80\xaf",
                b"\xf8\x80\x80\x80\xaf",
                b"\xfc\x80\x80\x80\x80\xaf",
            )
        ],
    )
    yield (
        18,
        [
            (False, b)
            for b in (
                b"\xc1\xbf",
                b"\xe0\x9f\xbf",
                b"\xf0\x8f\xbf\xbf",
                b"\xf8\x87\xbf\xbf\xbf",
                b"\xfc\x83\xbf\xbf\xbf\xbf",
            )
        ],
    )
    yield (
        19,
        [
            (False, b)
            for b in (
                b"\xc0\x80",
                b"\xe0\x80\x80",
                b"\xf0\x80\x80\x80",
                b"\xf8\x80\x80\x80\x80",
                b"\xfc\x80\x80\x80\x80\x80",
            )
        ],
    )
    high = [b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf"]
    low = [b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf"]
    yield 20, [(False, s) for s in high + low]
    yield 21, [(False, h + x) for h in high for x in (low[0], low[2])]
    last = [plane << 16 | c for plane in range(17) for c in (0xFFFE, 0xFFFF)]
    yield 22, [(True, chr(c).encode()) for c in last]
    yield 23, [(True, chr(c).encode()) for c in range(0xFFF9, 0xFFFE)]


def utf8() -> Iterator[Case]:
    for group, texts in utf8_texts():
        for number, (valid, payload) in enumerate(texts, 1):
            name = f"6.{group}.{number}"
            gets = [(TEXT, payload)] if valid else []
            code = None if valid else BAD_DATA
            yield Case(name, [text(payload)], gets, code)
            yield Case(f"{name}.octets", parts(TEXT, octets(payload)), gets, code)
            yield Case(
                f"{name}.chopped",
                [text(b"ascii " + payload)],
                [(TEXT, b"ascii " + payload)] if valid else [],
                code,
                chop=1,
            )


def closing() -> Iterator[Case]:
    hello = text("Hello World!")
    large = b"BAsd7&jh23" * 26214
    yield Case("7.1.1", [hello, close()], [(TEXT, b"Hello World!")], NORMAL)
    yield Case("7.1.2", [close(), close()], code=NORMAL)
    yield Case("7.1.3", [close(), ping()], code=NORMAL)
    yield Case("7.1.4", [close(), hello], code=NORMAL)
    yield Case(
        "7.1.5", [(TEXT, b"fragment1"), close(), (FIN | CONTINUATION, b"fragment2")], code=NORMAL
    )
    yield Case(
        "7.1.6",
        [text(large), hello, close(), ping()],
        [(TEXT, large), (TEXT, b"Hello World!")],
        NORMAL,
    )
    yield Case("7.3.1", [(FIN | CLOSE, b"")], code=NO_CODE)
    yield Case("7.3.2", [(FIN | CLOSE, b"a")], code=PROTOCOL_ERROR)
    yield Case("7.3.3", [close()], code=NORMAL)
    yield Case("7.3.4", [close(1000, b"Hello World!")], code=NORMAL)
    yield Case("7.3.5", [close(1000, b"*" * 123)], code=NORMAL)
    yield Case("7.3.6", [close(1000, b"*" * 124)], code=PROTOCOL_ERROR)
    yield Case("7.5.1", [close(1000, GREEK + b"\xed\xa0\x80edited")], code=BAD_DATA)
    good = [
        1000,
        1001,
        1002,
        1003,
        1007,
        1008,
        1009,
        1010,
        1011,
        1012,
        1013,
        1014,
        3000,
        3999,
        4000,
        4999,
    ]
    for number, code in enumerate(good, 1):
        yield Case(f"7.7.{number}", [close(code)], code=frozenset({code}))
    bad = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
    for number, code in enumerate(bad, 1):
        yield Case(f"7.9.{number}", [close(code)], code=PROTOCOL_ERROR)


def limits() -> Iterator[Case]:
    mib = 1 << 20
    for group, kind, letter in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate((mib // 16, mib // 4, mib, 4 * mib), 1):
            yield Case(
                f"9.{group}.{number}", [(FIN | kind, letter * size)], [(kind, letter * size)]
            )
        for number, size in enumerate((64, 256, 4096, 65536, mib), 1):
            whole = letter * mib
            pieces = [whole[i : i + size] for i in range(0, mib, size)]
            yield Case(f"9.{group + 2}.{number}", parts(kind, pieces), [(kind, whole)])
        for number, chop in enumerate((64, 256, 1024, 2048), 1):
            whole = letter * (mib // 4)
            yield Case(f"9.{group + 4}.{number}", [(FIN | kind, whole)], [(kind, whole)], chop=chop)
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            messages = [(kind, letter * size)] * 500
            yield Case(f"9.{group + 6}.{number}", [(FIN | kind, m) for _, m in messages], messages)
    whole = b"*" * 65536
    pieces = [whole[i : i + 1300] for i in range(0, 65536, 1300)]
    yield Case("10.1.1", parts(TEXT, pieces), [(TEXT, whole)])


def sample(kind: str, size: int, number: int) -> bytes:
    """Something to compress, another for each number."""
    rng = random.Random(f"{kind} {size} {number}")
    if kind == "random":
        return rng.randbytes(size)
    out = bytearray()
    words = ["der", "Käse", "ist", "grün", "und", "κόσμε", "value", "item", "list", "日本"]
    while len(out) < size:
        if kind == "json":
            record = {rng.choice(words): rng.randrange(1 << 20), "list": rng.choices(words, k=4)}
            out += json.dumps(record, ensure_ascii=True).encode()
        elif kind == "same":
            out += b"*"
        else:
            out += rng.choice(words).encode() + b" "
    cut = bytes(out[:size]) if kind != "prose" else bytes(out).decode()[: size // 2].encode()
    return cut


SIZES = (16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072)
NAME = "permessage-deflate"
ALL = NAME + "; client_max_window_bits"


def deflate() -> Iterator[Case]:
    for group, kind in enumerate(("json", "prose", "random", "same"), 1):
        opcode = BINARY if kind == "random" else TEXT
        for number, size in enumerate(SIZES, 1):
            messages = [(opcode, sample(kind, size, i)) for i in range(8)]
            steps = [(FIN | opcode, m) for _, m in messages]
            case = Case(
                f"12.{group}.{number}", steps, messages, offer=ALL, answer=NAME, compress=True
            )
            yield case
            if size > 4096:
                yield dataclasses.replace(case, name=f"{case.name}.parts", fragment=1000)
    name = NAME
    forget = "; server_no_context_takeover"
    ours = "; client_no_context_takeover"
    variants = [
        (name, name),
        (name + forget, name + forget),
        (f"{name}; server_max_window_bits=9", f"{name}; client_max_window_bits=9"),
        (f"{name}; server_max_window_bits=15", f"{name}; client_max_window_bits=15"),
        (
            f"{name}{forget}; server_max_window_bits=9",
            f"{name}{forget}{ours}; client_max_window_bits=9",
        ),
        (f"{name}{forget}; server_max_window_bits=15", f"{name}{ours}; server_max_window_bits=10"),
        (f"{name}{forget}; server_max_window_bits=9, {name}{forget}, {name}", name + ours),
    ]
    for group, (offer, answer) in enumerate(variants, 1):
        for number, size in enumerate(SIZES[1::2], 1):
            messages = [(TEXT, sample("json", size, i)) for i in range(8)]
            steps = [(FIN | TEXT, m) for _, m in messages]
            yield Case(
                f"13.{group}.{number}", steps, messages, offer=offer, answer=answer, compress=True
            )


SECTIONS: dict[str, Callable[[], Iterator[Case]]] = {
    "1 framing": framing,
    "2 pings": pings,
    "3 reserved bits": reserved_bits,
    "4 opcodes": opcodes,
    "5 fragmentation": fragments,
    "6 UTF-8 over fragments": utf8_fragments,
    "6 UTF-8": utf8,
    "7 closing": closing,
    "9 limits, 10 fragments": limits,
    "12, 13 compression": deflate,
}

# ---- running them -------------------------------------------------------------------------------


def octets_of(wire: Wire, case: Case, step: Step) -> Iterator[bytes]:
    """The frames of a step."""
    first, payload = step
    data = first & 15 in (TEXT, BINARY)
    if data and case.compress:
        payload = wire.compress(payload)
        first |= RSV1
    if not (data and case.fragment) or len(payload) <= case.fragment:
        yield wire.frame(first, payload)
        return
    for at in range(0, len(payload), case.fragment):
        last = at + case.fragment >= len(payload)
        head = (first & ~FIN if at == 0 else CONTINUATION) | (FIN if last else 0)
        yield wire.frame(head, payload[at : at + case.fragment])


def run(wire: Wire, case: Case) -> None:
    """Play the case on an open connection; Broken says what is wrong."""
    if case.compress and wire.deflate is None:
        raise Broken("no compression was agreed on")
    for step in case.send:
        for data in octets_of(wire, case, step):
            wire.queue(data, case.chop)
    wire.pump(len(case.gets) if case.code is None else sys.maxsize)
    if case.code is None:
        if wire.messages != case.gets:
            raise Broken(f"it sent {wire.messages!r:.200} and closed with {wire.close_code}")
        wire.queue(wire.frame(*close()))
        wire.pump(sys.maxsize)
    if wire.messages != case.gets[: len(wire.messages)]:
        raise Broken(f"other messages: {wire.messages!r:.200}")
    if case.code in (None, NORMAL) and len(wire.messages) < len(case.gets):
        raise Broken(f"only {len(wire.messages)} messages")
    if wire.close_code not in (case.code or NORMAL):
        raise Broken(f"closed with {wire.close_code} {wire.reason!r}")
    if wire.client:
        wire.wait_end()


def against_server(host: str, port: int, target: str, case: Case) -> str:
    """What is wrong with it; empty: nothing."""
    with socket.create_connection((host, port)) as sock:
        wire = Wire(sock, client=True)
        try:
            wire.open_as_client(f"{host}:{port}", target, case.offer)
            run(wire, case)
        except (Broken, OSError) as error:
            return f"{case.name}: {error}"
    return ""


def against_client(sock: socket.socket, case: Case) -> str:
    """The same for a client that has just connected."""
    with sock:
        wire = Wire(sock, client=False)
        try:
            wire.open_as_server(case.answer)
            run(wire, case)
        except (Broken, OSError) as error:
            return f"{case.name}: {error}"
    return ""


def main() -> int:
    """Run all cases whose numbers begin so, or all."""
    address, _, target = sys.argv[1].partition("/")
    host, _, port = address.rpartition(":")
    n = failed = 0
    for section in SECTIONS.values():
        for case in section():
            if sys.argv[2:] and not case.name.startswith(tuple(sys.argv[2:])):
                continue
            wrong = against_server(host, int(port), "/" + target, case)
            n += 1
            failed += bool(wrong)
            if wrong:
                print(wrong)
    print(f"{n - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
