#!/usr/bin/env python3
"""Documentation against the sources: the C API, links, versions, targets, tests, examples.

Prints one line for each finding and exits 1 if there are any.
"""

import pathlib
import re
import sys

import gen_api_doc

ROOT = pathlib.Path(__file__).parent.parent
FENCE = re.compile(r"^(```+).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")
RUN = "<!-- run -->"


def pages() -> list[pathlib.Path]:
    """Every Markdown file of the project."""
    skip = {"build", ".venv", ".git"}
    return [
        path
        for path in sorted(ROOT.rglob("*.md"))
        if not skip.intersection(path.relative_to(ROOT).parts)
    ]


def anchors(text: str) -> set[str]:
    """What headings are called in links to them."""
    found = set()
    for title in re.findall(r"^#{1,6} +(.*?) *$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower())
        found.add(plain.replace(" ", "-"))
    return found


def check_links(path: pathlib.Path, text: str) -> list[str]:
    """Relative links that lead nowhere."""
    found = []
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    for match in LINK.finditer(prose):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            found.append(f"{path.relative_to(ROOT)}: the link to {link} leads nowhere")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8")):
            found.append(
                f"{path.relative_to(ROOT)}: {target or 'this page'} has no heading #{anchor}"
            )
    return found


def check_examples(path: pathlib.Path, text: str) -> list[str]:
    """Marks that stand before no example; see tests/python/test_docs.py."""
    return [
        f"{path.relative_to(ROOT)}: {RUN} must stand right before a ```python or ```c fence"
        for after in text.split(RUN)[1:]
        if not re.match(r"\n+```(python|c)\n", after)
    ]


def check_targets(path: pathlib.Path, text: str) -> list[str]:
    """`make something` that the Makefile does not have."""
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", text))
    return [f"{path.relative_to(ROOT)}: no target: make {name}" for name in sorted(named - known)]


def check_tests(path: pathlib.Path, text: str) -> list[str]:
    """`FILE::NAME` of a test that is not there."""
    found = []
    for file, name in re.findall(r"`([\w/]+\.(?:py|c))::(\w+)`", text):
        source = ROOT / "tests" / file
        if not source.exists() or not re.search(rf"\b{name}\b", source.read_text("utf-8")):
            found.append(f"{path.relative_to(ROOT)}: no test {file}::{name} below tests/")
    return found


def check_api() -> list[str]:
    """docs/api-c.md is what gen_api_doc.py writes, and no function escaped that."""
    header = gen_api_doc.HEADER.read_text("utf-8")
    page = gen_api_doc.render(header)
    found = []
    if not gen_api_doc.PAGE.exists() or gen_api_doc.PAGE.read_text("utf-8") != page:
        found.append("docs/api-c.md does not agree with include/iokernel.h: run `make docs`")
    titles = set(re.findall(r"`(iok_\w+)`", "\n".join(re.findall(r"^### .*$", page, re.MULTILINE))))
    found += [
        f"include/iokernel.h: {name} is missing in docs/api-c.md"
        for name in gen_api_doc.functions(header)
        if name not in titles
    ]
    return found


def check_versions() -> list[str]:
    """The header and the build agree on the version."""
    header = gen_api_doc.HEADER.read_text("utf-8")
    parts = re.findall(r"^#define IOK_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header, re.MULTILINE)
    build = re.search(
        r"^  version: '([^']+)'", (ROOT / "meson.build").read_text("utf-8"), re.MULTILINE
    )
    if build is None or build[1] != ".".join(parts):
        return [f"include/iokernel.h has version {'.'.join(parts)}, meson.build has another one"]
    return []


def main() -> int:
    found = check_api() + check_versions()
    for path in pages():
        text = path.read_text("utf-8")
        found += check_links(path, text) + check_examples(path, text)
        found += check_targets(path, text) + check_tests(path, text)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
