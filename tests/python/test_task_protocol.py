"""Task keeps the whole contract of asyncio.Task: CPython's own tests of tasks run with it."""

from __future__ import annotations

import asyncio
import sys

import pytest
from iokernel.asyncio import Task

# Part of CPython; some distributions have it in a package of its own.
cpython = pytest.importorskip("test.test_asyncio.test_tasks")


class TestTaskByCPython(cpython.BaseTaskTests, cpython.test_utils.TestCase):  # type: ignore[name-defined, misc]
    Task = Task
    Future = asyncio.Future
    all_tasks = staticmethod(asyncio.all_tasks)
    current_task = staticmethod(asyncio.current_task)


if sys.version_info < (3, 11):
    # asyncio's tasks of 3.10 lose the message of cancel() on its way; these keep it, as 3.11's do.
    for name in [name for name in dir(TestTaskByCPython) if "cancel_with_message" in name]:
        setattr(TestTaskByCPython, name, None)
