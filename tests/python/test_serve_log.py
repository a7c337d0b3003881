"""How the log of `iokernel serve` is configured by YAML, whether PyYAML is there or not."""

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
