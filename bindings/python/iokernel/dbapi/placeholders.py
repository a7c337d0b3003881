"""From ``%s`` and ``%(name)s`` to PostgreSQL's ``$1``: a lexer of SQL, as far as that needs one.

It knows what the server's scanner (scan.l) knows of strings, quoted names, dollar quotes and
comments, since a ``%`` in there is no placeholder. What it is not: a parser.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from iokernel.dbapi.exceptions import ProgrammingError

# One piece of SQL a match. What is cut short goes on to the text's end, where the server complains.
_PIECES = re.compile(
    r"""
    (?P<escapes> \b[eE]'(?: [^'\\] | \\. | '' )*(?: '|\Z ) )
  | (?P<quoted>  '(?: [^'] | '' )*(?: '|\Z ) | "(?: [^"] | "" )*(?: "|\Z ) )
  | (?P<dollar>  (?<![\w$]) \$ (?P<tag> (?:[^\W\d]\w*)? ) \$ .*? (?: \$(?P=tag)\$ | \Z ) )
  | (?P<line>    --[^\r\n]* )
  | (?P<block>   /\* )
  | (?P<number>  (?<![\w$]) \$\d+ )
  | (?P<percent> % (?: \( (?P<name>[^)]*) \) (?P<form>.?) | (?P<char>.?) ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_MARKS = re.compile(r"/\*|\*/")
_FORMS = frozenset("sbt")  # %b and %t, binary and text, are psycopg's; here they are as %s


class Converted(NamedTuple):
    """SQL with $1 and so on, and what they stand for."""

    sql: str
    names: tuple[str, ...]  # of %(name)s, by their numbers; empty for %s
    size: int


def _block_end(sql: str, at: int) -> int:
    """Give the index behind a comment that begins there; such comments nest."""
    depth = 0
    for mark in _BLOCK_MARKS.finditer(sql, at):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)


def _refuse(text: str) -> ProgrammingError:
    return ProgrammingError(f"{text}; a percent sign itself is written %%")


@functools.lru_cache(maxsize=1024)
def convert(sql: str) -> Converted:
    """Convert placeholders; ``%%`` is a percent sign anywhere, also within quotes."""
    out: list[str] = []
    numbers: dict[str, int] = {}
    count = at = 0
    while found := _PIECES.search(sql, at):
        out.append(sql[at : found.start()])
        at = found.end()
        if found.lastgroup == "block":
            at = _block_end(sql, found.start())
        if found["number"]:
            raise ProgrammingError(f"{found[0]} beside parameters of %s or %(name)s")
        if not found["percent"]:
            out.append(sql[found.start() : at].replace("%%", "%"))
        elif found["name"] is not None:
            if found["form"] not in _FORMS:
                raise _refuse(f"%({found['name']}) without an s behind it")
            number = numbers.setdefault(found["name"], len(numbers) + 1)
            out.append(f"${number}")
        elif found["char"] in _FORMS:
            count += 1
            out.append(f"${count}")
        elif found["char"] == "%":
            out.append("%")
        else:
            raise _refuse(f"%{found['char']} is no placeholder")
    out.append(sql[at:])
    if numbers and count:
        raise ProgrammingError("%s and %(name)s in one statement")
    return Converted("".join(out), tuple(numbers), len(numbers) + count)


def native(sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None) -> tuple[Any, ...]:
    """Give the words of a call: SQL with $1, and parameters; without any, the SQL as it is."""
    if parameters is None:
        return (sql,)
    done = convert(sql)
    if isinstance(parameters, Mapping):
        if done.size and not done.names:
            raise ProgrammingError("the statement has %s, so parameters must be a sequence")
        missing = [name for name in done.names if name not in parameters]
        if missing:
            raise ProgrammingError(f"no parameter was given for %({missing[0]})s")
        return (done.sql, *[parameters[name] for name in done.names])
    if isinstance(parameters, (str, bytes)) or not isinstance(parameters, Sequence):
        raise ProgrammingError("parameters must be a sequence or a mapping")
    if done.names:
        raise ProgrammingError("the statement has %(name)s, so parameters must be a mapping")
    if len(parameters) != done.size:
        raise ProgrammingError(
            f"the statement takes {done.size} parameters; {len(parameters)} were given"
        )
    return (done.sql, *parameters)


_BLANK = re.compile(r"(?:\s|--[^\r\n]*|;)+")
_WORD = re.compile(r"\w+")


def first_words(sql: str, count: int) -> tuple[str, ...]:
    """Give the first words of a statement in capitals; comments do not count."""
    words: list[str] = []
    at = 0
    while len(words) < count:
        blank = _BLANK.match(sql, at)
        if blank:
            at = blank.end()
        elif sql.startswith("/*", at):
            at = _block_end(sql, at)
        elif word := _WORD.match(sql, at):
            words.append(word[0].upper())
            at = word.end()
        else:
            break
    return tuple(words)
