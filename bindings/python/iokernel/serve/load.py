"""Finds the application that ``module:app`` names, and what it speaks.

Every error names what was wrong and what is allowed. An exception in the application's own module
is shown with its traceback.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

DEFAULT_NAMES = ("app", "application")


class AppError(Exception):
    """The application cannot be had; the text is for people."""


def read_env_file(path: str) -> None:
    """Set what the file names and the environment lacks."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AppError(f"--env-file {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name.replace("_", "a").isalnum() or name[0].isdigit():
            raise AppError(f"--env-file {path}, line {number}: must be NAME=VALUE")
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        elif " #" in value:
            value = value.partition(" #")[0].rstrip()
        os.environ.setdefault(name, value)


def _import(name: str, directory: str) -> ModuleType:
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise AppError(f"{name!r} is no name of a module, such as package.module{_hint(name)}")
    path = os.path.abspath(directory)
    if path not in sys.path:
        sys.path.insert(0, path)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == name or name.startswith(missing + "."):
            raise AppError(
                f"there is no module {missing!r} in {path} or on sys.path; "
                f"--app-dir says where to look{_hint(name)}"
            ) from None
        raise


def _hint(name: str) -> str:
    if not name.endswith(".py"):
        return ""
    return f"; perhaps you mean {name.removesuffix('.py').strip('./').replace('/', '.')}"


def _find(module: ModuleType, names: str) -> Any:
    if not names:
        for name in DEFAULT_NAMES:
            if hasattr(module, name):
                return getattr(module, name)
        raise AppError(
            f"module {module.__name__!r} has no {' and no '.join(DEFAULT_NAMES)}; "
            f"name what to serve: {module.__name__}:NAME"
        )
    found: Any = module
    for name in names.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, [n for n in dir(found) if n[0] != "_"], n=3)
            hint = f"; it has {', '.join(near)}" if near else ""
            raise AppError(f"{module.__name__!r} has no {names!r}{hint}")
        found = getattr(found, name)
    return found


def load(text: str, *, directory: str = ".", factory: bool = False) -> Any:
    """Give the application; AppError, or what its module raises."""
    module_name, _, names = text.partition(":")
    found = _find(_import(module_name, directory), names)
    if factory:
        if not callable(found):
            raise AppError(f"{text} is {_kind(found)}; with --factory it must be a function")
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise AppError(f"--factory calls {text} without arguments: {error}") from None
        except ValueError:
            pass  # a builtin without a signature: the call tells
        found = found()
    if not callable(found):
        raise AppError(
            f"{text} is {_kind(found)}; an application is a callable: app(scope, receive, send) "
            "for ASGI, app(environ, start_response) for WSGI"
        )
    return found


def _kind(thing: object) -> str:
    return "a module" if isinstance(thing, ModuleType) else f"a {type(thing).__name__}"


def _takes(app: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(app).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True


def _is_coroutine_function(app: Any) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    app = inspect.unwrap(app)
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def interface_of(app: Any, asked: str, text: str) -> str:
    """Give asgi or wsgi."""
    if asked != "auto":
        return asked
    takes_two, takes_three = _takes(app, 2), _takes(app, 3)
    if _is_coroutine_function(app):
        if takes_three:
            return "asgi"
    elif takes_three != takes_two:
        return "asgi" if takes_three else "wsgi"
    elif takes_three:
        raise AppError(
            f"{text} takes any arguments, so it may be ASGI or WSGI; say --interface asgi or wsgi"
        )
    elif _takes(app, 0):
        raise AppError(
            f"{text} takes no arguments; if it is a function that makes the application, "
            "say --factory"
        )
    elif _takes(app, 1):
        raise AppError(f"{text} takes one argument as in ASGI 2; only ASGI 3 and WSGI are served")
    raise AppError(
        f"{text} is neither app(scope, receive, send) of ASGI "
        "nor app(environ, start_response) of WSGI"
    )
