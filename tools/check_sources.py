#!/usr/bin/env python3
"""Rules of taste that a machine can see: banned functions, notes to self, sizes, forgotten files.

Prints one line for each finding and exits 1 if there are any. Usage: check_sources.py [ROOT]

A function over FUNCTION_LINES needs an entry in LONG_FUNCTIONS with the reason; an entry that is
not needed any more is a finding too.
"""

import pathlib
import re
import sys

from check_floors import code_only

FILE_LINES = 900
FUNCTION_LINES = 70

# "path:function": why it is better in one piece.
LONG_FUNCTIONS: dict[str, str] = {}

# What to use instead.
BANNED = {
    "strcpy": "memcpy with the length at hand",
    "strcat": "snprintf",
    "strncpy": "memcpy; strncpy does not terminate",
    "strncat": "snprintf",
    "strtok": "a span",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "scanf": "iok_span_i64",
    "sscanf": "iok_span_i64",
    "atoi": "iok_span_i64",
    "atol": "iok_span_i64",
    "atoll": "iok_span_i64",
    "alloca": "a bounded array, or iok_malloc",
    "rand": "the random numbers of net.h, which the simulation gives",
    "srand": "the random numbers of net.h, which the simulation gives",
    "system": "posix_spawn",
    "popen": "posix_spawn",
    "tmpnam": "mkstemp",
    "gethostbyname": "the resolver of net.h",
    "gmtime": "gmtime_r",
    "localtime": "localtime_r",
    "strerror": "strerror_r",
}
# A core that looks at a clock by itself is not deterministic.
CORE = ("src/kernel/", "src/proto/", "src/policy/")
BANNED_IN_CORE = {
    "clock_gettime": "the time that net.h gives",
    "gettimeofday": "the time that net.h gives",
    "time": "the time that net.h gives",
    "usleep": "a timer",
    "sleep": "a timer",
    "nanosleep": "a timer",
    "socket": "net.h",
    "getrandom": "the random numbers of net.h",
}

NOTES = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
# A definition in this style: the name at column 0's declaration, the brace alone in column 0.
DEFINITION = re.compile(
    r"^(?:[A-Za-z_][^\n;{}]*?)?\b(\w+)\([^;{}]*\)(?:\s*__attribute__\(\(.*?\)\))?\n\{\n",
    re.MULTILINE,
)
C_TOPS = ("include", "src", "bindings", "examples", "bench", "tests", "fuzz")
PRODUCT = ("src/", "bindings/", "include/")


def calls(code: str, names: dict[str, str]) -> list[tuple[int, str]]:
    """(offset, name) of each call of a function in names; fields and longer names do not count."""
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")
    return [(m.start(), m[1]) for m in pattern.finditer(code)]


def functions(code: str) -> list[tuple[str, int, int]]:
    """(name, first line, lines) of each function defined at file level."""
    found = []
    for match in DEFINITION.finditer(code):
        end = code.find("\n}\n", match.end() - 1)
        first = code.count("\n", 0, match.start()) + 1
        last = code.count("\n", 0, end + 1) + 1 if end >= 0 else code.count("\n")
        found.append((match[1], first, last - first + 1))
    return found


def check_c(path: str, text: str) -> list[str]:
    """Findings in one C file."""
    found = []
    code = code_only(text)

    def line(offset: int) -> int:
        return code.count("\n", 0, offset) + 1

    # A source whose header stands at its head is described there.
    if not text.startswith(("/* ", f'#include "{pathlib.PurePath(path).stem}.h"')):
        found.append(f"{path}:1: must begin with a comment: what this is, what it is not")
    if path.startswith(PRODUCT):
        found += [
            f"{path}:{line(o)}: {n}() is banned; use {BANNED[n]}" for o, n in calls(code, BANNED)
        ]
    if path.startswith(CORE):
        found += [f"{path}:{line(o)}: {n}() is no business of the core; use {BANNED_IN_CORE[n]}"
                  for o, n in calls(code, BANNED_IN_CORE)]  # fmt: skip
    if path.startswith(PRODUCT):
        for name, first, lines in functions(code):
            if lines > FUNCTION_LINES and f"{path}:{name}" not in LONG_FUNCTIONS:
                found.append(
                    f"{path}:{first}: {name} has {lines} lines, the limit is {FUNCTION_LINES}; "
                    "divide it, or say why in LONG_FUNCTIONS of tools/check_sources.py"
                )
    return found


def check_any(path: str, text: str) -> list[str]:
    """Findings that do not depend on the language."""
    found = []
    lines = text.split("\n")
    if len(lines) - 1 > FILE_LINES:
        found.append(f"{path}: {len(lines) - 1} lines, the limit is {FILE_LINES}; divide it")
    for number, line in enumerate(lines, 1):
        note = NOTES.search(line)
        if note and path != "tools/check_sources.py":
            found.append(f"{path}:{number}: a note to self ({note[0]}); do it, or file an issue")
        if line != line.rstrip():
            found.append(f"{path}:{number}: blanks at the end of the line")
    return found


def check_lists(root: pathlib.Path) -> list[str]:
    """Library sources that src/meson.build does not name."""
    listed = set(re.findall(r"'([\w/]+\.c)'", (root / "src/meson.build").read_text()))
    there = {f.relative_to(root / "src").as_posix() for f in (root / "src").rglob("*.c")}
    return [f"src/{f}: not in src/meson.build" for f in sorted(there - listed)]


def check_long_functions(root: pathlib.Path) -> list[str]:
    """Entries of LONG_FUNCTIONS that excuse nothing."""
    stale = []
    for entry in LONG_FUNCTIONS:
        path, name = entry.split(":")
        file = root / path
        sizes = (
            {n: size for n, _, size in functions(code_only(file.read_text()))}
            if file.exists()
            else {}
        )
        if sizes.get(name, 0) <= FUNCTION_LINES:
            stale.append(
                f"tools/check_sources.py: LONG_FUNCTIONS has {entry}, which is not long (any more)"
            )
    return stale


def check(root: pathlib.Path) -> list[str]:
    """All findings below root."""
    found = check_lists(root) + check_long_functions(root)
    for top in (*C_TOPS, "tools"):
        for file in sorted((root / top).rglob("*")):
            path = file.relative_to(root).as_posix()
            if file.suffix not in (".c", ".h", ".py", ".pyi", ".build") or "__pycache__" in path:
                continue
            text = file.read_text(encoding="utf-8")
            found += check_any(path, text)
            if file.suffix in (".c", ".h"):
                found += check_c(path, text)
    return found


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    found = check(root)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
