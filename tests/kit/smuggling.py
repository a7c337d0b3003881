"""Requests that two readers of HTTP may see differently: what has to become of each here, and why.

Behind each of them a test sends AFTER. A case is either refused, with nothing behind it read; or taken, as exactly the
requests that are named; or it waits for a rest that does not come, and AFTER is a part of that.
"""

from __future__ import annotations

from typing import NamedTuple

AFTER = b"GET /after HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"
"""What an attacker wants to be taken for a request, and the one before him to take for a part of a body."""


class Case(NamedTuple):
    """Bytes, the requests that they are ("method target body"), the statuses of the answers."""

    name: str
    raw: bytes
    seen: tuple[str, ...]
    statuses: tuple[int, ...]
    why: str
    open_ended: bool = False  # some front waits for the rest


CASES: list[Case] = []


def _refused(name: str, raw: bytes, why: str, status: int = 400) -> None:
    CASES.append(Case(name, raw, (), (status,), why))


def _taken(name: str, raw: bytes, seen: list[str], why: str) -> None:
    CASES.append(Case(name, raw, (*seen, "GET /after "), (200,) * (len(seen) + 1), why))


def _waits(name: str, raw: bytes, why: str) -> None:
    CASES.append(Case(name, raw, (), (), why, open_ended=True))


def post(fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A POST with these field lines."""
    return b"POST /p HTTP/" + version + b"\r\nHost: h\r\n" + fields + b"\r\n\r\n" + body


def get(fields: bytes, body: bytes = b"", target: bytes = b"/g", version: bytes = b"1.1") -> bytes:
    """A GET with these field lines."""
    return b"GET " + target + b" HTTP/" + version + b"\r\n" + fields + b"\r\n\r\n" + body


def chunked(body: bytes, fields: bytes = b"Transfer-Encoding: chunked") -> bytes:
    """A POST with these chunks."""
    return post(fields, body)


SEES_NO_BODY = b"0\r\n\r\n" + HIDDEN
BOTH = "9112, 6.3: both lengths are an attack or a mistake"


def _both_lengths() -> None:
    length = b"Content-Length: %d\r\n" % len(SEES_NO_BODY)
    _refused("cl-te", post(length + b"Transfer-Encoding: chunked", SEES_NO_BODY), BOTH)
    _refused(
        "te-cl",
        post(
            b"Transfer-Encoding: chunked\r\nContent-Length: 4",
            b"2e\r\n" + HIDDEN[:44] + b"\r\n0\r\n\r\n",
        ),
        BOTH,
    )
    _refused(
        "cl-0-te", post(b"Content-Length: 0\r\nTransfer-Encoding: chunked", SEES_NO_BODY), BOTH
    )
    _refused(
        "te-with-cl-in-capitals",
        post(b"TRANSFER-ENCODING: CHUNKED\r\nCONTENT-LENGTH: 3", b"abc"),
        BOTH,
    )
    _refused(
        "bad-cl-with-te",
        post(b"Content-Length: x\r\nTransfer-Encoding: chunked", SEES_NO_BODY),
        BOTH,
    )
    _refused(
        "get-cl-te",
        get(b"Host: h\r\n" + length + b"Transfer-Encoding: chunked", SEES_NO_BODY),
        "the method changes nothing",
    )


def _codings() -> None:
    other = "9112, 6.1: a coding that is not understood: 501"
    for name, value in (
        ("gzip", b"gzip"),
        ("xchunked", b"xchunked"),
        ("chunked-dash", b"chunked-"),
        ("chunke", b"chunke"),
        ("identity", b"identity"),
        ("quoted", b'"chunked"'),
        ("gzip-chunked", b"gzip, chunked"),
        ("chunked-gzip", b"chunked, gzip"),
        ("chunked-identity", b"chunked, identity"),
        ("twice-in-a-list", b"chunked, chunked"),
        ("with-parameter", b"chunked; q=1"),
        ("comma-before", b", chunked"),
        ("comma-behind", b"chunked,"),
        ("empty", b""),
    ):
        CASES.append(
            Case(
                f"te-{name}",
                chunked(SEES_NO_BODY, b"Transfer-Encoding: " + value),
                (),
                (501,),
                other,
            )
        )
    for name, fields in (
        ("twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("twice-identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("twice-cow", b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"),
        ("twice-other-case", b"Transfer-Encoding: chunked\r\ntransfer-encoding: x"),
    ):
        status = 501 if name == "twice-cow" else 400
        _refused(f"te-{name}", chunked(SEES_NO_BODY, fields), "one of them hides the other", status)
    for name, line in (
        ("space-before-colon", b"Transfer-Encoding : chunked"),
        ("tab-before-colon", b"Transfer-Encoding\t: chunked"),
        ("vertical-tab", b"Transfer-Encoding:\x0bchunked"),
        ("form-feed", b"Transfer-Encoding: \x0cchunked"),
        ("nul-behind", b"Transfer-Encoding: chunked\x00"),
        ("nul-in-name", b"Transfer-Encoding\x00: chunked"),
        ("space-in-name", b"Transfer Encoding: chunked"),
        ("leading-space", b" Transfer-Encoding: chunked"),
        ("folded-before", b"X: y\r\n Transfer-Encoding: chunked"),
        ("cr-within", b"X: y\rTransfer-Encoding: chunked"),
        ("lf-before", b"X: y\nTransfer-Encoding: chunked"),
        ("lf-behind", b"Transfer-Encoding: chunked\nX: y"),
        ("cr-behind", b"Transfer-Encoding: chunked\r\r"),
        ("del-behind", b"Transfer-Encoding: chunked\x7f"),
        ("high-behind-name", b"Transfer-Encoding\xa0: chunked"),
        ("no-colon", b"Transfer-Encoding chunked"),
        ("nothing-before-colon", b": chunked"),
    ):
        _refused(
            f"te-{name}", chunked(SEES_NO_BODY, line), "9112, 5: no field line; some read it as one"
        )
    for name, line, why in (
        ("high-behind", b"Transfer-Encoding: chunked\xa0", "0xa0 is no blank: another coding"),
        (
            "folded-value",
            b"Transfer-Encoding:\r\n chunked",
            "an empty list already; folding is refused anyway",
        ),
    ):
        _refused(f"te-{name}", chunked(SEES_NO_BODY, line), why, 501)
    for name, line in (
        ("underscore", b"Transfer_Encoding: chunked"),
        ("other-name", b"X-Transfer-Encoding: chunked"),
        ("in-value", b"X: Transfer-Encoding: chunked"),
    ):
        _taken(
            f"te-{name}",
            chunked(HIDDEN, line),
            ["POST /p ", "GET /hidden "],
            "another field: there is no body, and the next request is one",
        )
    for name, value in (
        ("blanks", b"  \t chunked \t "),
        ("no-blank", b"chunked"),
        ("capitals", b"ChUnKeD"),
    ):
        _taken(
            f"te-{name}",
            chunked(SEES_NO_BODY, b"Transfer-Encoding:" + value),
            ["POST /p ", "GET /hidden "],
            "the same coding: an empty body, and a request behind it",
        )
    _refused(
        "te-in-1.0",
        post(b"Transfer-Encoding: chunked", SEES_NO_BODY, b"1.0"),
        "9112, 6.1: faulty framing",
    )
    _refused(
        "te-in-1.0-keep-alive",
        post(b"Connection: keep-alive\r\nTransfer-Encoding: chunked", SEES_NO_BODY, b"1.0"),
        "the same",
    )
    _refused(
        "te-named-by-connection",
        post(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: x, chunked", SEES_NO_BODY),
        "a proxy may remove what Connection names",
        501,
    )


def _lengths() -> None:
    for name, value in (
        ("plus", b"+3"),
        ("minus", b"-3"),
        ("minus-zero", b"-0"),
        ("hex", b"0x3"),
        ("octal-like", b"0o3"),
        ("float", b"3.0"),
        ("exponent", b"3e0"),
        ("underscore", b"1_0"),
        ("list", b"3, 3"),
        ("list-unequal", b"3, 4"),
        ("list-no-blank", b"3,3"),
        ("comma", b"3,"),
        ("semicolon", b"3;"),
        ("blank-within", b"3 3"),
        ("quoted", b'"3"'),
        ("empty", b""),
        ("word", b"three"),
        ("overflow-32", b"4294967299"),
        ("overflow-64", b"18446744073709551619"),
        ("overflow-63", b"9223372036854775811"),
        ("very-long", b"9" * 400),
        ("nul", b"3\x00"),
        ("vertical-tab", b"\x0b3"),
        ("arabic-digits", "٣".encode()),
        ("superscript", "³".encode()),
        ("fullwidth", "３".encode()),
    ):
        CASES.append(
            Case(
                f"cl-{name}",
                post(b"Content-Length: " + value, b"abc" + HIDDEN),
                (),
                (413 if name == "overflow-32" else 400,),
                "9112, 6.3: no number of digits only; or one that no body has",
            )
        )
    for name, fields in (
        ("twice-equal", b"Content-Length: 3\r\nContent-Length: 3"),
        ("twice-unequal", b"Content-Length: 3\r\nContent-Length: 0"),
        ("twice-far-apart", b"Content-Length: 0\r\nX: y\r\ncontent-length: 3"),
        ("space-before-colon", b"Content-Length : 3"),
        ("tab-before-colon", b"Content-Length\t: 3"),
        ("folded", b"Content-Length:\r\n 3"),
        ("folded-digits", b"Content-Length: 3\r\n 3"),
        ("lf", b"Content-Length: 3\nX: y"),
        ("cr-within", b"X: y\rContent-Length: 3"),
        ("nul-in-name", b"Content\x00-Length: 3"),
    ):
        _refused(f"cl-{name}", post(fields, b"abc" + HIDDEN), "9112, 5 and 6.3")
    for name, value in (("leading-zeros", b"0003"), ("blanks", b" \t3\t ")):
        _taken(
            f"cl-{name}",
            post(b"Content-Length:" + value, b"abc" + HIDDEN),
            ["POST /p abc", "GET /hidden "],
            "9110, 8.6: digits, in blanks",
        )
    _taken(
        "cl-underscore-name",
        post(b"Content_Length: 3", HIDDEN),
        ["POST /p ", "GET /hidden "],
        "another field; without a length a request has no body",
    )
    _taken(
        "cl-of-a-get",
        get(b"Host: h\r\nContent-Length: %d" % len(HIDDEN), HIDDEN),
        ["GET /g " + HIDDEN.decode()],
        "9110, 9.3.1: a body of a GET is a body",
    )
    _taken(
        "cl-0-of-a-get",
        get(b"Host: h\r\nContent-Length: 0", HIDDEN),
        ["GET /g ", "GET /hidden "],
        "no body",
    )
    _waits(
        "cl-too-long",
        post(b"Content-Length: 1000", b"abc" + HIDDEN),
        "what follows belongs to the body",
    )


def _chunks() -> None:
    why = "9112, 7.1: not the form of a chunk"
    for name, body in (
        ("plus", b"+3\r\nabc\r\n0\r\n\r\n"),
        ("minus", b"-3\r\nabc\r\n0\r\n\r\n"),
        ("0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
        ("blank-before", b" 3\r\nabc\r\n0\r\n\r\n"),
        ("blank-behind", b"3 \r\nabc\r\n0\r\n\r\n"),
        ("tab-behind", b"3\t\r\nabc\r\n0\r\n\r\n"),
        ("blank-within", b"0 3\r\nabc\r\n0\r\n\r\n"),
        ("underscore", b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
        ("no-size", b"\r\nabc\r\n0\r\n\r\n"),
        ("only-extension", b";a=b\r\n\r\n0\r\n\r\n"),
        ("word", b"xyz\r\nabc\r\n0\r\n\r\n"),
        ("nul", b"3\x00\r\nabc\r\n0\r\n\r\n"),
        ("lf-behind-size", b"3\nabc\r\n0\r\n\r\n"),
        ("lf-behind-data", b"3\r\nabc\n0\r\n\r\n"),
        ("lf-behind-last", b"3\r\nabc\r\n0\n\r\n"),
        ("lf-at-end", b"3\r\nabc\r\n0\r\n\n"),
        ("cr-behind-size", b"3\rabc\r\n0\r\n\r\n"),
        ("cr-cr-lf", b"3\r\r\nabc\r\n0\r\n\r\n"),
        ("lf-in-extension", b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("cr-in-extension", b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
        ("nul-in-extension", b"3;a=\x00\r\nabc\r\n0\r\n\r\n"),
        ("data-too-long", b"3\r\nabcd\r\n0\r\n\r\n"),
        ("data-too-short", b"4\r\nabc\r\n0\r\n\r\n"),
        ("two-octets-instead-of-crlf", b"3\r\nabcXX0\r\n\r\n"),
        ("extension-of-lf-then-request", b"0;\n" + HIDDEN),
    ):
        _refused(f"chunk-{name}", chunked(body + HIDDEN), why)
    for name, size in (
        ("overflow-32", b"100000003"),
        ("overflow-64", b"10000000000000003"),
        ("all-ones", b"f" * 16),
        ("overflow-63", b"8000000000000003"),
        ("many-digits", b"f" * 300),
    ):
        status = 413 if name == "overflow-32" else 400
        raw = chunked(size + b"\r\nabc\r\n0\r\n\r\n" + HIDDEN)
        CASES.append(Case(f"chunk-{name}", raw, (), (status,), "no body is as long", status == 413))
    for name, body in (
        ("zeros", b"0000000000003\r\nabc\r\n000\r\n\r\n"),
        ("capitals", b"A\r\n0123456789\r\n0\r\n\r\n"),
        ("extension", b"3;a=b\r\nabc\r\n0;c\r\n\r\n"),
        ("extension-with-blanks", b"3 ; a = b\r\nabc\r\n0\r\n\r\n"),
        ("extension-quoted", b'3;a="\\"0;"\r\nabc\r\n0\r\n\r\n'),
        ("extension-like-a-size", b"3;0\r\nabc\r\n0\r\n\r\n"),
    ):
        data = "0123456789" if name == "capitals" else "abc"
        _taken(
            f"chunk-{name}",
            chunked(body + HIDDEN),
            [f"POST /p {data}", "GET /hidden "],
            "9112, 7.1: the body's end is the same for all",
        )
    _taken(
        "chunk-of-many-extensions",
        chunked((b"1;" + b"x" * 60 + b"\r\na\r\n") * 100 + b"0\r\n\r\n"),
        ["POST /p " + "a" * 100],
        "bounded, but not by as little",
    )
    _refused(
        "chunk-long-extension",
        chunked(b"1;" + b"x" * 10000 + b"\r\na\r\n0\r\n\r\n"),
        "4,096 octets are the limit",
        431,
    )
    _refused(
        "chunk-extensions-without-end",
        chunked((b"1;" + b"x" * 3000 + b"\r\na\r\n") * 60 + b"0\r\n\r\n"),
        "65,536 octets are the limit of all extensions of a body",
    )


def _trailers() -> None:
    last = b"3\r\nabc\r\n0\r\n"
    for name, fields in (
        ("length", b"Content-Length: 100"),
        ("coding", b"Transfer-Encoding: chunked"),
        ("host", b"Host: other"),
        ("connection", b"Connection: close"),
        ("some", b"X-Sum: 7"),
    ):
        _taken(
            f"trailer-{name}",
            chunked(last + fields + b"\r\n\r\n" + HIDDEN),
            ["POST /p abc", "GET /hidden "],
            "9110, 6.5.1: a field in the trailer frames nothing",
        )
    for name, fields in (
        ("lf", b"X: y\nZ: a\r\n"),
        ("space-before-colon", b"X : y\r\n"),
        ("folded", b"X: y\r\n z\r\n"),
        ("request", HIDDEN[:-2]),
        ("nul", b"X: \x00\r\n"),
        ("no-colon", b"X\r\n"),
    ):
        _refused(f"trailer-{name}", chunked(last + fields + b"\r\n"), "as any field line")


def _heads() -> None:
    for name, raw, status in (
        ("lf-lines", b"GET /g HTTP/1.1\nHost: h\n\n", 400),
        ("lf-request-line", b"GET /g HTTP/1.1\nHost: h\r\n\r\n", 400),
        ("lf-end", b"GET /g HTTP/1.1\r\nHost: h\r\n\n", 400),
        ("lf-cr-lf-end", b"GET /g HTTP/1.1\r\nHost: h\n\r\n", 400),
        ("cr-lines", b"GET /g HTTP/1.1\rHost: h\r\r", 400),
        ("two-blanks", b"GET  /g HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("tab", b"GET\t/g\tHTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("blank-behind-version", b"GET /g HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        ("blank-in-target", b"GET /g HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("leading-blank", b" GET /g HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("nul-in-target", b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("high-in-target", b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("fragment", b"GET /g#f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("method-with-colon", b"GET: /g HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("no-target", b"GET HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("version-2.0", b"GET /g HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("version-0.9", b"GET /g HTTP/0.9\r\nHost: h\r\n\r\n", 505),
        ("version-1", b"GET /g HTTP/1\r\nHost: h\r\n\r\n", 400),
        ("version-01.1", b"GET /g HTTP/01.1\r\nHost: h\r\n\r\n", 400),
        ("version-1.10", b"GET /g HTTP/1.10\r\nHost: h\r\n\r\n", 400),
        ("version-lower-case", b"GET /g http/1.1\r\nHost: h\r\n\r\n", 400),
        ("simple-request", b"GET /g\r\n", 400),
        ("preface-of-http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400),
        ("proxy-line", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("two-empty-lines", b"\r\n\r\nGET /g HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ):
        CASES.append(Case(f"line-{name}", raw, (), (status,), "9112, 2 and 3"))
    for name, fields in (
        ("nul-in-value", b"Host: h\r\nX: a\x00b"),
        ("nul-in-name", b"Host: h\r\nX\x00: ab"),
        ("empty-name", b"Host: h\r\n: ab"),
        ("space-in-name", b"Host: h\r\nX Y: ab"),
        ("high-in-name", b"Host: h\r\nX\xe4: ab"),
        ("bracket-in-name", b"Host: h\r\nX[1]: ab"),
        ("cr-in-value", b"Host: h\r\nX: a\rb"),
        ("lf-in-value", b"Host: h\r\nX: a\nb"),
        ("escape-in-value", b"Host: h\r\nX: a\x1bb"),
        ("folded-first", b" X: y\r\nHost: h"),
        ("folded", b"Host: h\r\nX: a\r\n b"),
        ("folded-by-tab", b"Host: h\r\nX: a\r\n\tb"),
        ("folded-empty", b"Host: h\r\nX: a\r\n "),
        ("no-host", b"X: y"),
        ("two-hosts", b"Host: h\r\nHost: h"),
        ("two-hosts-unequal", b"Host: h\r\nhost: i"),
        ("host-list", b"Host: h, i"),
        ("host-with-blank", b"Host: h i"),
        ("host-with-path", b"Host: h/x"),
        ("host-with-user", b"Host: u@h"),
        ("host-space-before-colon", b"Host : h"),
    ):
        _refused(f"field-{name}", get(fields), "9112, 3.2 and 5")
    _taken(
        "field-host-with-bad-port",
        get(b"Host: h:x", HIDDEN),
        ["GET /g ", "GET /hidden "],
        "it frames nothing",
    )
    _refused(
        "field-too-many",
        get(b"Host: h\r\n" + b"A: b\r\n" * 200 + b"C: d"),
        "128 are the limit",
        431,
    )
    _refused(
        "field-too-long", get(b"Host: h\r\nX: " + b"y" * 20000), "16,384 octets are the limit", 431
    )
    _refused("target-too-long", get(b"Host: h", target=b"/" + b"y" * 20000), "the same", 414)
    for name, target, host in (
        ("other-host", b"http://other/g", b"h"),
        ("other-port", b"http://h:81/g", b"h"),
        ("user", b"http://u@h/g", b"h"),
        ("no-host", b"http:///g", b"h"),
        ("backslash", b"http://h\\g", b"h"),
        ("authority", b"h:80", b"h"),
        ("relative", b"g", b"h"),
        ("asterisk", b"*", b"h"),
    ):
        _refused(f"target-{name}", get(b"Host: " + host, target=target), "9112, 3.2")
    CASES.append(
        Case(
            "target-of-connect",
            b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n",
            ("CONNECT h:80 ",),
            (500,),
            "the application's 200 would begin a tunnel (9110, 9.3.6): it is refused, and nothing behind it is read",
        )
    )
    _taken(
        "target-absolute",
        get(b"Host: h", HIDDEN, b"http://h/g?a"),
        ["GET /g?a ", "GET /hidden "],
        "9112, 3.2.2",
    )
    _taken("one-empty-line", b"\r\n" + HIDDEN, ["GET /hidden "], "9112, 2.2: of old clients")


def _connections() -> None:
    _taken(
        "pipelined",
        HIDDEN + get(b"Host: h") + HIDDEN,
        ["GET /hidden ", "GET /g ", "GET /hidden "],
        "9112, 9.3.2",
    )
    _taken(
        "pipelined-bodies",
        post(b"Content-Length: 3", b"abc")
        + chunked(b"1\r\nx\r\n0\r\n\r\n")
        + post(b"Content-Length: 0"),
        ["POST /p abc", "POST /p x", "POST /p "],
        "each body ends where it says",
    )
    for name, first in (
        ("close", get(b"Host: h\r\nConnection: close")),
        ("close-and-keep-alive", get(b"Host: h\r\nConnection: keep-alive, close")),
        ("1.0", get(b"Host: h", version=b"1.0")),
        ("1.0-without-host", get(b"X: y", version=b"1.0")),
    ):
        CASES.append(
            Case(
                f"behind-{name}",
                first + HIDDEN,
                ("GET /g ",),
                (200,),
                "nothing behind the last request",
            )
        )
    _taken(
        "1.0-keep-alive",
        get(b"Host: h\r\nConnection: keep-alive", HIDDEN, version=b"1.0"),
        ["GET /g ", "GET /hidden "],
        "as nginx and ab ask for it",
    )
    for name, fields in (
        (
            "h2c",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        ("websocket-13-without-key", b"Connection: Upgrade\r\nUpgrade: x-other"),
        ("not-named", b"Upgrade: h2c"),
    ):
        _taken(
            f"upgrade-{name}",
            get(b"Host: h\r\n" + fields, HIDDEN),
            ["GET /g ", "GET /hidden "],
            "9110, 7.8: may be ignored; nothing is tunnelled, what follows is a request",
        )
    _taken(
        "upgrade-with-body",
        post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d" % len(HIDDEN), HIDDEN),
        ["POST /p " + HIDDEN.decode()],
        "a body stays a body",
    )
    _taken(
        "content-length-named-by-connection",
        post(b"Connection: Content-Length\r\nContent-Length: 3", b"abc" + HIDDEN),
        ["POST /p abc", "GET /hidden "],
        "9110, 7.6.1: it has a meaning of its own",
    )
    for method in (b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"):
        _taken(
            f"body-of-{method.decode().lower()}",
            post(b"Content-Length: 3", b"abc" + HIDDEN).replace(b"POST", method),
            [f"{method.decode()} /p abc", "GET /hidden "],
            "the method says nothing of the request's body",
        )
    _refused(
        "expect-unknown",
        post(b"Expect: x\r\nContent-Length: 3", b"abc" + HIDDEN),
        "9110, 10.1.1",
        417,
    )
    _refused(
        "expect-twice",
        post(b"Expect: 100-continue, x\r\nContent-Length: 3", b"abc"),
        "the same",
        417,
    )
    CASES.append(
        Case(
            "expect-continue",
            post(b"Expect: 100-continue\r\nContent-Length: 3", b"abc" + HIDDEN),
            ("POST /p abc", "GET /hidden ", "GET /after "),
            (100, 200, 200, 200),
            "9110, 10.1.1: the body ends where it says",
        )
    )
    _taken(
        "expect-without-body",
        get(b"Host: h\r\nExpect: 100-continue", HIDDEN),
        ["GET /g ", "GET /hidden "],
        "9110, 10.1.1: nothing to continue with",
    )


for _add in (_both_lengths, _codings, _lengths, _chunks, _trailers, _heads, _connections):
    _add()
