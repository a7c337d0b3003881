"""SQLAlchemy's own dialect compliance suite, whole, on both kinds of engine, against a real PostgreSQL.

The suite is a plugin of pytest that takes over the process, so it gets one of its own: tests/dialect
has what it needs.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from xml.etree import ElementTree

import iokernel
import pytest
from dialect import requirements
from kit.postgres import PostgresServer
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

ROOT = pathlib.Path(__file__).parent.parent.parent
SUITE = ROOT / "tests/dialect"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["iokernel", "iokernel_async"])
def test_compliance(driver: str, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.xml"
    package = pathlib.Path(iokernel.__file__).parent.parent
    with PostgresServer(["max_prepared_transactions = 10"]) as server:
        server.psql("CREATE SCHEMA test_schema")
        url = f"postgresql+{driver}://app@/app?host={server.directory}&port={server.port}"
        command = [sys.executable, "-m", "pytest", "-c", "setup.cfg", "suite.py"]
        done = subprocess.run(
            [*command, "-q", "--dburi", url, f"--junitxml={report}"],
            cwd=SUITE,
            env={**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{SUITE}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    tests = list(ElementTree.parse(report).getroot().iter("testcase"))
    skips = [skip.get("message", "") for test in tests for skip in test.iter("skipped")]
    assert len(tests) - len(skips) > 1800  # with SQLAlchemy 2.1.9: 1819
    for skip in skips:
        name = skip.rpartition(" : ")[2].partition(":")[0]
        assert name in requirements.SKIPPED, skip


def test_every_feature_that_is_skipped_has_a_reason_and_is_documented() -> None:
    closed = {
        name
        for name, feature in vars(SuiteRequirements).items()
        if isinstance(feature, property) and _is_closed(feature)
    }
    assert closed <= {*requirements.SKIPPED, *requirements.RUN}
    page = (ROOT / "docs/frameworks/sqlalchemy.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE)
    assert dict(rows) == requirements.SKIPPED


def _is_closed(feature: property) -> bool:
    assert feature.fget is not None
    rule = feature.fget(requirements.Requirements())
    if not isinstance(
        rule, exclusions.compound
    ):  # of Python or the system, and not of the database
        return False
    return any("marked as skip" in str(vars(skip)) for skip in rule.skips)
