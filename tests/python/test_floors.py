"""The checks of tools/ find what they are for, and nothing in a tree that is in order."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).parent.parent.parent / "tools"

GOOD = {
    "include/iokernel.h": "/* iokernel.h - public. */\n#include <stdint.h>\n",
    "src/meson.build": "sources = files('base/mem.c', 'kernel/a.c', 'net/uv.c')\n",
    "src/base/count.h": "/* count.h - atomics. */\n#include <stdatomic.h>\n",
    "src/base/mem.c": "/* mem.c - memory. */\nvoid *p(void)\n{\n    return malloc(1);\n}\n",
    "src/net/net.h": "/* net.h - contract. */\n",
    "src/net/uv.h": "/* uv.h - driver. */\n",
    "src/net/uv.c": '/* uv.c - driver. */\n#include <uv.h>\n\n#include "uv.h"\n',
    "src/ring/port.h": "/* port.h - port. */\n",
    "src/kernel/a.c": (
        '/* a.c - core. */\n#include "../net/net.h"\n#include "../ring/port.h"\n'
        "/* malloc(1) in a comment */\n"
    ),
    "bindings/python/src/m.c": "/* m.c - it. */\n#include <Python.h>\n\n#include <iokernel.h>\n",
}

# name: (checker, file, text, what the message must hold)
PLANTED = {
    "upwards": ("floors", "src/base/x.h", '#include "../ring/port.h"', "src/base may include only"),
    "driver": ("floors", "src/kernel/x.h", '#include "../net/uv.h"', "src/kernel may include only"),
    "codec-ring": ("floors", "src/proto/x.h", '#include "../ring/port.h"', "src/proto may include"),
    "binding": ("floors", "bindings/python/src/x.h", '#include "../../../src/net/net.h"', "only"),
    "loop": ("floors", "src/kernel/x.h", "#include <uv.h>", "<uv.h> may be included only by"),
    "tls": ("floors", "src/net/uv_x.h", "#include <openssl/ssl.h>", "<openssl/ssl.h>"),
    "python": ("floors", "src/ring/x.h", "#include <Python.h>", "<Python.h>"),
    "atomics": ("floors", "src/kernel/x.h", "_Atomic int n;", "atomics only in"),
    "builtin": ("floors", "bindings/python/src/x.h", "__atomic_load_n(p, 0);", "atomics only in"),
    "malloc": ("floors", "src/proto/x.h", "free(p);", "allocation"),
    "banned": ("sources", "src/proto/x.h", "strcpy(a, b);", "strcpy() is banned"),
    "clock": ("sources", "src/kernel/x.h", "clock_gettime(a, b);", "no business of the core"),
    "note": ("sources", "src/kernel/x.h", "/* TO" + "DO: later */", "a note to self"),
    "long-file": ("sources", "src/kernel/x.h", "int a;\n" * 900, "902 lines, the limit is 900"),
    "long-function": (
        "sources",
        "src/kernel/x.h",
        "static int f(void)\n{\n" + "    a();\n" * 80 + "}\n",
        "f has 83 lines",
    ),
    "unlisted": ("sources", "src/net/dns.c", "", "not in src/meson.build"),
    "no-head": ("sources", "src/kernel/y.h", None, "must begin with a comment"),
}


def run(checker: str, root: pathlib.Path) -> tuple[int, str]:
    command = [sys.executable, TOOLS / f"check_{checker}.py", root]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def plant(root: pathlib.Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("checker", ["floors", "sources"])
def test_good_tree_passes(checker: str, tmp_path: pathlib.Path) -> None:
    plant(tmp_path, GOOD)
    assert run(checker, tmp_path) == (0, "")


@pytest.mark.parametrize("name", PLANTED)
def test_planted_violation_is_found(name: str, tmp_path: pathlib.Path) -> None:
    checker, file, text, message = PLANTED[name]
    plant(tmp_path, GOOD)
    head = "" if text is None else f"/* {pathlib.PurePath(file).name} - planted. */\n"
    plant(tmp_path, {file: f"{head}{text or 'int x;'}\n"})
    status, output = run(checker, tmp_path)
    assert status == 1
    assert output.startswith(file)
    assert message in output
    assert output.count("\n") == 1
