#!/usr/bin/env python3
"""Writes docs/api-c.md from the comments of include/iokernel.h."""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
HEADER = ROOT / "include/iokernel.h"
PAGE = ROOT / "docs/api-c.md"

SECTION = re.compile(r"^/\* -{4} (.*?) -+ \*/$")
FUNCTION = re.compile(r"\bIOK_API\b[^;(]*?\b(iok_\w+)\(")
PREAMBLE = """\
# The C API

Written by `tools/gen_api_doc.py` from the comments in [include/iokernel.h](../include/iokernel.h);
edit those, then run `make docs`.
"""


@dataclasses.dataclass
class Entry:
    """A comment and the declarations below it, up to the next comment or blank line."""

    comment: str = ""
    code: str = ""

    def names(self) -> list[str]:
        """What is declared here."""
        functions = FUNCTION.findall(self.code)
        types = re.findall(r"^(?:struct|enum) iok_\w+(?= \{|;)", self.code, re.MULTILINE)
        macros = re.findall(r"^#define (IOK_\w+)", self.code, re.MULTILINE)
        return functions or types or macros


def comment_text(raw: str) -> str:
    """A comment as Markdown: without its stars; indented examples are code blocks already."""
    inside = raw.strip().removeprefix("/*").removesuffix("*/")
    lines = [re.sub(r"^\s*\* ?", "", line) for line in inside.split("\n")]
    return "\n".join(line.rstrip() for line in [lines[0].strip(), *lines[1:]]).strip()


def entries(lines: list[str]) -> list[Entry]:
    """Takes a section apart."""
    found: list[Entry] = []
    current = Entry()
    depth = 0
    position = 0

    def finish() -> None:
        nonlocal current
        if current.code.strip() or current.comment:
            found.append(current)
        current = Entry()

    while position < len(lines):
        line = lines[position]
        if depth == 0 and line.startswith("/*"):
            finish()
            end = position
            while "*/" not in lines[end]:
                end += 1
            current.comment = comment_text("\n".join(lines[position : end + 1]))
            position = end + 1
            continue
        if depth == 0 and not line.strip() and not current.code.endswith("\\\n"):
            finish()
        else:
            current.code += line + "\n"
            depth += line.count("{") - line.count("}")
        position += 1
    finish()
    return found


def sections(text: str) -> list[tuple[str, list[Entry]]]:
    """(title, entries) of each part of the header; the first, untitled, is the head comment."""
    body = text.split("#ifndef IOKERNEL_H")[0]
    found = [("", entries(body.split("\n")))]
    current: list[str] = []
    title = None
    for line in text.split("\n"):
        match = SECTION.match(line)
        if match or line.startswith("#ifdef __cplusplus"):
            if title is not None:
                found.append((title, entries(current)))
            title, current = (match[1] if match else None), []
        elif title is not None:
            current.append(line)
    return found


def render(text: str) -> str:
    """The page."""
    parts = [PREAMBLE]
    for title, content in sections(text):
        if title:
            parts.append(f"## {title[0].upper()}{title[1:]}\n")
        for entry in content:
            names = entry.names()
            if names:
                parts.append("### " + ", ".join(f"`{name}`" for name in names) + "\n")
            if entry.code:
                parts.append("```c\n" + entry.code.replace("IOK_API ", "") + "```\n")
            if entry.comment:
                parts.append(entry.comment + "\n")
    return "\n".join(parts)


def functions(text: str) -> list[str]:
    """All public functions."""
    return FUNCTION.findall(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL))


if __name__ == "__main__":
    PAGE.write_text(render(HEADER.read_text(encoding="utf-8")), encoding="utf-8")
