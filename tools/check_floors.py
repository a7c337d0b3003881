#!/usr/bin/env python3
"""The floors: each directory includes only what is below it. DESIGN.md's picture, as a check.

Prints one line for each violation, with the rule, and exits 1 if there are any.
Usage: check_floors.py [ROOT]
"""

import pathlib
import re
import sys

# What a directory's files may include of ours: prefixes of paths from the root. Its own directory
# goes without saying.
FLOORS = {
    "include": [],
    "src/base": ["include"],
    "src/ring": ["include", "src/base"],
    "src/proto": ["include", "src/base"],
    "src/policy": ["include", "src/base"],
    "src/kernel": ["include", "src/base", "src/ring", "src/proto", "src/policy", "src/net/net.h"],
    "src/net": ["include", "src/base"],
    "src/discovery": ["include", "src/base"],
    "src/observe": [
        "include",
        "src/base",
        "src/ring",
        "src/proto",
        "src/policy",
        "src/kernel",
        "src/net/net.h",
    ],
    "src": ["include", "src"],
    "bindings": ["include"],
    "examples": ["include"],
    "bench": ["include"],
    "tests": ["include", "src"],
    "fuzz": ["include", "src", "tests/kit"],
}

# Headers that are neither ours nor libc's: who may include what.
LIBRARIES = [
    (re.compile(r"uv\.h|uv/.*"), ["src/net/uv"]),
    (re.compile(r"openssl/.*"), ["src/net/tls", "src/base/digest.c", "tests/"]),
    (re.compile(r"ares.*\.h"), ["src/net/dns"]),
    (re.compile(r"zlib\.h"), ["src/proto/websocket_deflate.c", "tests/"]),
    (re.compile(r"Python\.h|structmember\.h|datetime\.h|frameobject\.h"), ["bindings/python/"]),
    (re.compile(r"cmocka\.h"), ["tests/"]),
    (re.compile(r"stdatomic\.h"), ["src/ring/", "src/base/count.h", "src/base/hist."]),
]

# Words that belong to one place. Comments and string literals do not count.
WORDS = [
    (
        re.compile(r"\b(_Atomic|__atomic_\w+|__sync_\w+|atomic_\w+)\b"),
        "atomics",
        ["src/ring/", "src/base/count.h", "src/base/hist.", "tests/", "fuzz/"],
    ),
    (
        re.compile(
            r"(?<![\w.>])(malloc|calloc|realloc|reallocarray|free|strn?dup|v?asprintf|aligned_alloc)\s*\("
        ),
        "allocation other than by base/mem.h",
        ["src/base/mem.c", "tests/", "fuzz/", "bench/", "examples/"],
    ),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
COMMENT_OR_STRING = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"' + r"|'(?:\\.|[^'\\\n])*'", re.DOTALL
)


def code_only(text: str) -> str:
    """The text with comments and literals blanked, line numbers kept."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def floor_of(path: str) -> str | None:
    """The longest entry of FLOORS that holds the file."""
    return max((f for f in FLOORS if path.startswith(f + "/")), key=len, default=None)


def check_include(
    root: pathlib.Path, path: str, quoted: str | None, angled: str | None
) -> str | None:
    """What is wrong with this include, or None."""
    if angled is not None:
        for pattern, places in LIBRARIES:
            if pattern.fullmatch(angled) and not path.startswith(tuple(places)):
                return f"<{angled}> may be included only by {', '.join(p + '*' for p in places)}"
        return None
    try:
        target = (
            (root / path).parent.joinpath(quoted).resolve().relative_to(root.resolve()).as_posix()
        )
    except ValueError:
        return f'"{quoted}" is outside the tree'
    floor = floor_of(path)
    # The second form: relative to src/, as tests and fuzzers include the inside.
    if (
        not (root / target).exists()
        and floor in ("tests", "fuzz")
        and (root / "src" / quoted).exists()
    ):
        return None
    own = target.startswith(floor + "/") and floor_of(target) == floor
    if own or any(target == f or target.startswith(f + "/") for f in FLOORS[floor]):
        return None
    allowed = ", ".join([floor, *FLOORS[floor]])
    return f'"{quoted}" is {target}, but {floor} may include only: {allowed}'


def check_file(root: pathlib.Path, path: str) -> list[str]:
    """All violations in one file."""
    text = (root / path).read_text(encoding="utf-8")
    found = []
    without_comments = re.sub(
        r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL
    )
    for match in INCLUDE.finditer(without_comments):
        wrong = check_include(root, path, match[1], match[2])
        if wrong:
            found.append(
                f"{path}:{text.count(chr(10), 0, match.start(1 if match[1] else 2)) + 1}: {wrong}"
            )
    code = code_only(text)
    for pattern, what, places in WORDS:
        if path.startswith(tuple(places)):
            continue
        for match in pattern.finditer(code):
            line = code.count("\n", 0, match.start()) + 1
            found.append(
                f"{path}:{line}: {match[1]}: {what} only in {', '.join(p + '*' for p in places)}"
            )
    return found


def check(root: pathlib.Path) -> list[str]:
    """All violations below root."""
    found = []
    for top in sorted({floor.split("/")[0] for floor in FLOORS}):
        for file in sorted((root / top).rglob("*.[ch]")):
            found += check_file(root, file.relative_to(root).as_posix())
    return found


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    found = check(root)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
