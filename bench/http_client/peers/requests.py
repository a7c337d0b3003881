"""requests: one session."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[Callable[[], int]]:
    target = f"http://127.0.0.1:{port}/item"
    with requests.Session() as session:
        session.trust_env = False
        yield lambda: len(session.get(target).content)


def version() -> str:
    return f"requests {requests.__version__}"
