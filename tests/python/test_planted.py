"""The planted bugs of tests/sim fit into the sources as they are: see `make soak-planted`."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
PATCHES = sorted((ROOT / "tests/sim/planted").glob("*.patch"))


def test_there_are_some() -> None:
    assert len(PATCHES) >= 3


@pytest.mark.parametrize("patch", PATCHES, ids=[path.stem for path in PATCHES])
def test_applies(patch: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src")
    done = subprocess.run(
        ["patch", "-p1", "--fuzz=0", "--input", patch],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
