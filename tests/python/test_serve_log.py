"""The log of `iokernel serve`: a message is a line, and YAML configures it if PyYAML is there."""

from __future__ import annotations

import json
import logging
import logging.config
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from iokernel.serve import log


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    before = [(x, x.handlers[:], x.propagate, x.level, x.disabled) for x in (log.log, log.access)]
    yield
    for logger, handlers, propagate, level, disabled in before:
        logger.handlers[:] = handlers
        logger.propagate, logger.disabled = propagate, disabled
        logger.setLevel(level)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What logging.config was given."""
    given: list[Any] = []
    monkeypatch.setattr(logging.config, "dictConfig", given.append)
    return given


def test_yaml(tmp_path: pathlib.Path, seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = types.ModuleType("yaml")
    yaml.safe_load = json.load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yaml", yaml)
    (tmp_path / "a.yaml").write_text('{"version": 1}')
    log.configure("info", False, str(tmp_path / "a.yaml"))
    assert seen == [{"version": 1}]


def test_yaml_needs_its_package(
    tmp_path: pathlib.Path, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yml").write_text("version: 1")
    with pytest.raises(log.LogConfigError, match=r"a\.yml: ModuleNotFoundError: .*yaml"):
        log.configure("info", False, str(tmp_path / "a.yml"))
    assert seen == []


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", True)
    log.access.info("%s", "/a\n12:00:00 info \x1b[2J\u2028\x7f caf\u00e9\tb")
    try:
        raise ValueError("one\ntwo\r\x9b")
    except ValueError:
        log.log.exception("it\nfailed")
    first, second, *trace = capsys.readouterr().err.split("\n")
    assert first.endswith("/a\\n12:00:00 info \\x1b[2J\\u2028\\x7f caf\u00e9\tb")
    assert second.endswith("it\\nfailed")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-3:] == ["ValueError: one", "two\\r\\x9b", ""]
