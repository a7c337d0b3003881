"""SASLprep in C against Python's stringprep and unicodedata: each character, and many texts."""

from __future__ import annotations

import os
import pathlib
import random
import stringprep
import subprocess
import unicodedata

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = pathlib.Path(os.environ.get("IOK_BUILD", ROOT / "build/c")) / "tests" / "saslprep"
# Those that Unicode had already when RFC 3454 was written: for them all versions agree.
OLD = [
    code
    for code in range(0x110000)
    if not 0xD800 <= code < 0xE000 and not stringprep.in_table_a1(chr(code))
]


def wanted(text: str) -> str:
    """RFC 4013, and the text as it is where PostgreSQL takes that."""
    if text.isascii():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    done = unicodedata.normalize("NFKC", mapped)
    prohibited = any(
        stringprep.in_table_c12(char)
        or stringprep.in_table_c21_c22(char)
        or stringprep.in_table_c3(char)
        or stringprep.in_table_c4(char)
        or stringprep.in_table_c6(char)
        or stringprep.in_table_c7(char)
        or stringprep.in_table_c8(char)
        or stringprep.in_table_c9(char)
        or stringprep.in_table_a1(char)
        for char in done
    )
    if not done or prohibited:
        return text
    if any(map(stringprep.in_table_d1, done)) and (
        any(map(stringprep.in_table_d2, done))
        or not (stringprep.in_table_d1(done[0]) and stringprep.in_table_d1(done[-1]))
    ):
        return text
    return done


def prepared(lines: list[bytes]) -> list[bytes]:
    assert PROGRAM.exists(), f"{PROGRAM} is not built: run `make c`"
    text = "".join(line.hex() + "\n" for line in lines)
    done = subprocess.run([PROGRAM], input=text, capture_output=True, text=True, check=True)
    return [bytes.fromhex(line) for line in done.stdout.split("\n")[:-1]]


def check(texts: list[str]) -> None:
    for text, got in zip(texts, prepared([text.encode() for text in texts]), strict=True):
        assert got == wanted(text).encode(), f"{text!a}"


def test_examples() -> None:
    """RFC 4013, section 3, and PostgreSQL's own."""
    examples = {
        "I\u00adX": "IX",
        "user": "user",
        "USER": "USER",
        "\u00aa": "a",
        "\u2168": "IX",
        "\u0007": "\u0007",
        "\u00fc\u0007": "\u00fc\u0007",
        "\u0627\u0031": "\u0627\u0031",
        "a\u00a0b": "a b",
        "\u00ad": "\u00ad",
        "\u1100\u1161\u11a8": "\uac01",
        "\uac00": "\uac00",
        "e\u0301": "\u00e9",
        "\U0001d400": "A",
    }
    got = prepared([text.encode() for text in examples])
    assert got == [text.encode() for text in examples.values()]


def test_every_character() -> None:
    check([chr(code) for code in OLD])
    check([f"a{chr(code)}\u0323\u0307" for code in OLD])


def test_texts() -> None:
    dice = random.Random(5802)
    marks = [code for code in OLD if unicodedata.combining(chr(code))]
    leftward = [code for code in OLD if stringprep.in_table_d1(chr(code))]
    hangul = [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3)]
    usual = [*range(0xAC00, 0xAC40), *range(0xC0, 0x250), *range(0x41, 0x5B)]
    pools = [OLD, marks, leftward, hangul, usual]
    check(
        [
            "".join(chr(dice.choice(dice.choice(pools))) for _ in range(dice.randint(1, 12)))
            for _ in range(20000)
        ]
    )
    check(
        [
            "".join(chr(dice.choice(pool)) for _ in range(dice.randint(1, 8)))
            for pool in pools
            for _ in range(4000)
        ]
    )


def test_what_is_no_text() -> None:
    """Not UTF-8: as it is, however it is wrong."""
    wrong = [
        b"\xff",
        b"a\x80",
        b"\xc1\x81",
        b"\xc3",
        b"\xc3a",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
        b"\xc2\xad\xff",
    ]
    assert prepared(wrong) == wrong
    longest = "\ufdfa" * 400
    assert prepared([longest.encode()]) == [unicodedata.normalize("NFKC", longest).encode()]
