#!/usr/bin/env python3
"""Writes the tables of src/proto/saslprep.c: saslprep_tables.py FILE.

What may stand in a password is as of RFC 3454, from Python's module stringprep (Unicode 3.2, for
ever). Normal forms are those of this Python's Unicode; a newer one changes nothing for characters
that an older one has (Unicode's policy of stable normal forms), and those that came after 3.2 are
not allowed anyway.
"""

import pathlib
import stringprep
import sys
import unicodedata
from collections.abc import Callable, Iterable

HANGUL = range(0xAC00, 0xD7A4)  # composed by arithmetic
SURROGATES = range(0xD800, 0xE000)
CODES = [code for code in range(0x110000) if code not in SURROGATES]
PROHIBITED = (  # RFC 4013, 2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def array(kind: str, name: str, items: Iterable[str]) -> str:
    return f"static const {kind} {name}[] = {{\n" + ",\n".join(items) + ",\n};\n"


def ranges(name: str, holds: Callable[[str], bool]) -> str:
    found: list[list[int]] = []
    for code in CODES:
        if holds(chr(code)):
            if found and found[-1][1] == code - 1:
                found[-1][1] = code
            else:
                found.append([code, code])
    return array("struct range", name, (f"{{{first:#x}, {last:#x}}}" for first, last in found))


def decompositions() -> str:
    rows: list[str] = []
    units: list[str] = []
    for code in CODES:
        text = unicodedata.normalize("NFKD", chr(code))
        if text == chr(code) or code in HANGUL:
            continue
        wire = text.encode("utf-16-be")
        rows.append(f"{{{code:#x}, {len(wire) // 2}, {len(units)}}}")
        units += (f"0x{wire[at : at + 2].hex()}" for at in range(0, len(wire), 2))
    return array("uint16_t", "units", units) + array("struct expansion", "expansions", rows)


def compositions() -> str:
    rows: list[tuple[int, int, int]] = []
    for code in CODES:
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        if unicodedata.normalize("NFC", chr(code)) == chr(code):
            rows.append((int(parts[0], 16), int(parts[1], 16), code))
    items = (f"{{{first:#x}, {second:#x}, {code:#x}}}" for first, second, code in sorted(rows))
    return array("struct pair", "pairs", items)


def classes() -> str:
    found = ((code, unicodedata.combining(chr(code))) for code in CODES)
    return array("struct rank", "ranks", (f"{{{code:#x}, {rank}}}" for code, rank in found if rank))


def main() -> None:
    parts = [
        f"/* Made by tools/saslprep_tables.py, with Unicode {unicodedata.unidata_version}. */\n",
        ranges("spaces", stringprep.in_table_c12),
        ranges("nothing", stringprep.in_table_b1),
        ranges("prohibited", lambda char: any(holds(char) for holds in PROHIBITED)),
        ranges("unassigned", stringprep.in_table_a1),
        ranges("leftward", stringprep.in_table_d1),
        ranges("rightward", stringprep.in_table_d2),
        decompositions(),
        compositions(),
        classes(),
    ]
    pathlib.Path(sys.argv[1]).write_text("\n".join(parts))


main()
