"""Compares our HTTP/1.1 reader with two others, by mutation: Node's llhttp, and h11.

    differ.py PROGRAM [CASES [SEED]]        PROGRAM is build/c/tests/http_read

What is compared are the messages that each takes. To take other messages is always an error, as it
is how requests get smuggled. Where one takes more than the other, the reason that the other gave is
in EXPLAINED, and docs/protocols/http.md has it; another reason is an error as well. The figures are
printed.
"""

from __future__ import annotations

import collections
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import h11

Message = tuple[str, str, int, tuple[tuple[bytes, bytes], ...], bytes]


@dataclass
class Seen:
    """What a parser made of a case: whole messages, and why it refused the rest, if it did."""

    messages: list[Message] = field(default_factory=list)
    failed: str = ""


# ---- the corpus ---------------------------------------------------------------------------------

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /a?b=c HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nX-Empty:\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: u\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n",
    b"DELETE /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
]
REPLIES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nServer: x\r\nContent-Length: 1\r\n\r\n.",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
]
LINES = [
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 05",
    b"Content-Length : 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding:\x0bchunked",
    b"transfer-encoding: \tchunked\t",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Host: h",
    b"Host: other",
    b"X: a\tb",
    b"X: \xff",
    b" folded",
    b"X",
    b": x",
    b"X\x00: y",
    b"X: y\rz",
    b"",
]
BYTES = b"\r\n\t \x00\x0b\x7f\x80\xff:;,=/?#%*0159aAfFgGxXzZ\"'(){}[]@\\"


def mutate(rng: random.Random, case: bytes) -> bytes:
    """Change something small."""
    kind = rng.randrange(8)
    at = rng.randrange(len(case) + 1)
    if kind == 0:
        return case[:at] + bytes([rng.choice(BYTES)]) + case[at:]
    if kind == 1:
        return case[:at] + case[at + 1 :]
    if kind == 2:
        return case[:at] + bytes([rng.choice(BYTES)]) + case[at + 1 :]
    lines = case.split(b"\r\n")
    line = rng.randrange(len(lines))
    if kind == 3:
        lines.insert(line, rng.choice(lines))
    elif kind in (4, 5):
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(LINES))
    elif kind == 6:
        lines[line : line + 2] = [b"\n".join(lines[line : line + 2])]
    else:
        other = rng.randrange(len(lines))
        lines[line], lines[other] = lines[other], lines[line]
    return b"\r\n".join(lines)


def make_cases(n: int, seed: int) -> list[tuple[bytes, bytes]]:
    """Cases of some messages each, most of them hurt."""
    rng = random.Random(seed)
    cases = []
    for _ in range(n):
        role = rng.choice((b"q", b"s"))
        corpus = REQUESTS if role == b"q" else REPLIES
        case = b"".join(rng.choice(corpus) for _ in range(rng.randrange(1, 4)))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            case = mutate(rng, case)
        cases.append((role, case))
    return cases


# ---- the parsers --------------------------------------------------------------------------------

TOKEN = re.compile(r'array (\d+)|i64 (-?\d+)|bytes "((?:[^"\\]|\\.)*)"')


def run(command: list[str], cases: list[tuple[bytes, bytes]]) -> str:
    """Give all cases to a program."""
    data = b"".join(role + struct.pack("<I", len(case)) + case for role, case in cases)
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout.decode()


def unpack(values: list[Any]) -> Any:
    """Take one value off the tokens."""
    value = values.pop(0)
    return [unpack(values) for _ in range(value[0])] if isinstance(value, tuple) else value


def make_pairs(fields: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Fields as all parsers can agree on them: h11 gives codings in small letters."""
    pairs = []
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        value = value.strip(b" \t")
        lower = name.lower()
        pairs.append((lower, value.lower() if lower == b"transfer-encoding" else value))
    return tuple(pairs)


def our_message(line: str) -> Message:
    values: list[Any] = []
    for count, number, text in TOKEN.findall(line):
        if count:
            values.append((int(count),))
        elif number:
            values.append(int(number))
        else:
            values.append(text.encode().decode("unicode_escape").encode("latin-1"))
    parts = unpack(values)
    request = line.startswith("request")
    fields, body = (parts[3], parts[4]) if request else (parts[2], parts[3])
    pairs = make_pairs(fields)
    if request:
        return parts[0].decode("latin-1"), parts[1].decode("latin-1"), 0, pairs, body
    return "", "", parts[0], pairs, body


def read_ours(program: str, cases: list[tuple[bytes, bytes]]) -> list[Seen]:
    """By http_read."""
    all_seen = []
    seen = Seen()
    for line in run([program], cases).splitlines():
        if line == "end":
            all_seen.append(seen)
            seen = Seen()
        elif line.startswith(("request ", "reply ")):
            seen.messages.append(our_message(line))
        elif line.startswith("failed "):
            seen.failed = line[7:]
    return all_seen


def read_node(cases: list[tuple[bytes, bytes]]) -> list[Seen]:
    """By llhttp."""
    script = pathlib.Path(__file__).with_name("node_read.js")
    all_seen = []
    for line in run(["node", "--no-warnings", str(script)], cases).splitlines():
        got = json.loads(line)
        seen = Seen(failed=got["failed"] or "")
        for m in got["messages"]:
            raw = [bytes.fromhex(part) for part in m["fields"]]
            pairs = make_pairs(raw)
            body = bytes.fromhex(m["body"])
            seen.messages.append((m["method"], m["target"], m["status"], pairs, body))
        all_seen.append(seen)
    return all_seen


def h11_start(connection: h11.Connection, replies: bool) -> None:
    if replies:
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
        connection.send(h11.EndOfMessage())


def h11_next(connection: h11.Connection, replies: bool) -> bool:
    """Make it ready for another message; False where it says that there is none."""
    if not replies and connection.our_state is h11.SEND_RESPONSE:
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
        return False
    connection.start_next_cycle()
    h11_start(connection, replies)
    return True


def read_h11(role: bytes, case: bytes) -> Seen:
    """By h11."""
    replies = role == b"s"
    connection = h11.Connection(h11.CLIENT if replies else h11.SERVER, 1 << 20)
    seen = Seen()
    head: Any = None
    body = b""
    h11_start(connection, replies)
    try:
        connection.receive_data(case)
        if replies:
            connection.receive_data(b"")
        while len(seen.messages) < 3 or not replies:
            event = connection.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.Request | h11.Response):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                pairs = make_pairs([bytes(part) for pair in head.headers for part in pair])
                if replies:
                    seen.messages.append(("", "", head.status_code, pairs, body))
                else:
                    names = head.method.decode(), head.target.decode()
                    seen.messages.append((*names, 0, pairs, body))
                if not h11_next(connection, replies):
                    break
    except h11.RemoteProtocolError as error:
        seen.failed = str(error)
    return seen


# ---- differences --------------------------------------------------------------------------------

# How the reason begins that the one gives who takes less; docs/protocols/http.md has each group.
EXPLAINED: dict[str, list[str]] = {
    # RFC 9110, 5.6.3: a tab is a blank; to llhttp this is no coding that it knows
    "other message": ["a tab behind chunked"],
    "they take more": [
        # After close, whatever else is said
        "the server closed the connection",
        "(nothing)",
        # Lines
        "a line that ends without a CR before its LF",
        "a control character in",
        # First lines
        "the request line",
        "the request's target",
        "the reply does not begin with",
        "the reply's status",
        "another version of HTTP",
        "the reply has another version",
        "a target in absolute form",
        # Fields
        "a field without a name",
        "no Host",
        "more than one Host",
        "a Host that",
        # Framing
        "more than one Content-Length",
        "a Content-Length that",
        "both Content-Length and Transfer-Encoding",
        "more than one Transfer-Encoding",
        "a Transfer-Encoding other than chunked",
        "Transfer-Encoding in HTTP/1.0",
        "a chunk does not begin with",
        "a tab behind chunked",
    ],
    "we take more": [
        # Methods: llhttp has a list of those that it knows
        "HPE_INVALID_METHOD: Invalid method encountered",
        "HPE_INVALID_METHOD: Expected space after method",
        # Versions: 1.2 to 1.9 are read as 1.1
        "HPE_INVALID_VERSION: Invalid HTTP version",
        # An empty line before a request
        "no request line received",
        # What we do not read at all: it follows the last message of its connection
        "HPE_CLOSED_CONNECTION",
        # h11 has no keep-alive of HTTP/1.0
        "(nothing)",
        # Trailers, which say nothing about the framing
        "HPE_INVALID_CONTENT_LENGTH",
        "HPE_INVALID_TRANSFER_ENCODING",
        "Only Transfer-Encoding: chunked is supported",
        "bad Content-Length",
        "conflicting Content-Length",
        "multiple Transfer-Encoding",
        # Continued fields of a reply
        "HPE_INVALID_HEADER_TOKEN: Unexpected whitespace after header value",
        "HPE_STRICT: Invalid character in chunk extensions",
        # RFC 9112, 6.3: a 1xx ends with its fields, whatever these say; llhttp reads a body
        "a length in an interim reply",
    ],
}

INTERIM_WITH_LENGTH = re.compile(
    rb"HTTP/1\.[01] 1\d\d[^\n]*\n(?:[^\r\n]+\r\n)*content-length *:", re.IGNORECASE
)


def differs(ours: Seen, theirs: Seen, case: bytes) -> tuple[str, str]:
    """("", ""), or which kind of difference it is and what the one said that took less."""
    tab = b"chunked\t" in case.lower() or b"chunked \t" in case.lower()
    for one, other in zip(ours.messages, theirs.messages, strict=False):
        if one != other:
            return "other message", "a tab behind chunked" if tab else ""
    if len(ours.messages) > len(theirs.messages):
        body = theirs.failed.startswith("HPE_INVALID_CONSTANT") and INTERIM_WITH_LENGTH.search(case)
        return (
            "we take more",
            "a length in an interim reply" if body else theirs.failed or "(nothing)",
        )
    if len(ours.messages) < len(theirs.messages):
        to_end = tab and ours.failed.startswith("a chunk ")
        return "they take more", "a tab behind chunked" if to_end else ours.failed or "(nothing)"
    return "", ""


def main() -> int:
    """Compare, print, and say 1 if something is not explained."""
    program = sys.argv[1]
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 20000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    cases = make_cases(n, seed)
    ours = read_ours(program, cases)
    others = {"llhttp": read_node(cases), "h11": [read_h11(*case) for case in cases]}
    unexplained = 0
    for name, theirs in others.items():
        found: collections.Counter[tuple[str, str]] = collections.Counter()
        first: dict[tuple[str, str], bytes] = {}
        for (role, case), one, other in zip(cases, ours, theirs, strict=True):
            difference = differs(one, other, case)
            if difference[0]:
                found[difference] += 1
                first.setdefault(difference, role + b" " + case)
        print(f"{name}: {n} cases of seed {seed}, {sum(found.values())} differ")
        for difference, count in found.most_common():
            kind, reason = difference
            known = any(reason.startswith(start) for start in EXPLAINED.get(kind, []))
            unexplained += not known
            print(f"{count:8} {kind}: {reason}{'' if known else '  NOT EXPLAINED, as in'}")
            if not known:
                print(f"         {first[difference]!r}")
    return unexplained > 0


if __name__ == "__main__":
    sys.exit(main())
