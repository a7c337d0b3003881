"""psycopg 3 in pipeline mode, which a program has to arrange by itself: callers put their queries
into a queue, and one task for each connection sends what it finds there as one pipeline."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from peers import psycopg

BATCH_MAX = 64


class Pipelines:
    def __init__(self) -> None:
        self.queue: deque[tuple[str, tuple[Any, ...], asyncio.Future[list[Any]]]] = deque()
        self.filled = asyncio.Event()

    def fetch(self, sql: str, *args: Any) -> "asyncio.Future[list[Any]]":
        future = asyncio.get_running_loop().create_future()
        self.queue.append((sql, args, future))
        self.filled.set()
        return future

    execute = fetch

    async def drive(self, connection: Any) -> None:
        while True:
            await self.filled.wait()
            batch = [self.queue.popleft() for _ in range(min(BATCH_MAX, len(self.queue)))]
            if not self.queue:
                self.filled.clear()
            if not batch:
                continue
            async with connection.pipeline():
                cursors = [
                    await connection.execute(psycopg.form(sql), args, binary=True)
                    for sql, args, _ in batch
                ]
            for cursor, (_, _, future) in zip(cursors, batch, strict=True):
                future.set_result(await cursor.fetchall() if cursor.description else [])


@asynccontextmanager
async def asyncio_client(port: int, connections: int) -> AsyncIterator[Pipelines]:
    from psycopg import AsyncConnection

    pipelines = Pipelines()
    drivers = []
    for _ in range(connections):
        connection = await AsyncConnection.connect(psycopg.place(port), **psycopg.OPTIONS)
        drivers.append(asyncio.ensure_future(pipelines.drive(connection)))
    yield pipelines


def version() -> str:
    return f"{psycopg.version()}, pipelines"
