"""PostgreSQL under load: 500 tasks on 4 connections, and servers that go away and come back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import iokernel
import pytest
from iokernel import asyncio as aio
from kit.postgres import PostgresServer

TASKS = 500


class Load:
    """Tasks that insert numbers, each once, and note how each insert ended."""

    def __init__(self, db: aio.Postgres, chance: random.Random) -> None:
        self.db = db
        self.chance = chance
        self.ended: dict[int, str] = {}
        self.errors: Counter[str] = Counter()
        self.stop = False

    async def task(self, number: int) -> None:
        key = number * 1_000_000
        while not self.stop:
            key += 1
            await self.insert(key)

    async def insert(self, key: int) -> None:
        call = self.db.fetchval("INSERT INTO load VALUES ($1) RETURNING a", key)
        if self.chance.random() < 0.05:
            await asyncio.sleep(0)
            if call.cancel():
                self.ended[key] = "cancelled"
                return
        try:
            assert await call == key
            self.ended[key] = "done"
        except iokernel.Error as error:
            self.ended[key] = error.outcome
            self.errors[f"{type(error).__name__}: {error}"] += 1
            await asyncio.sleep(0.01)

    async def more(self, n: int) -> None:
        """Wait until so many more inserts are done."""
        wanted = self.done() + n
        for _ in range(6000):
            if self.done() >= wanted:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"only {self.done()} of {wanted} are done; {self.errors}")

    def done(self) -> int:
        return Counter(self.ended.values())["done"]


@pytest.mark.parametrize("how", ["kill", "stop", "terminate"])
def test_outcomes_add_up(how: str) -> None:
    """Each insert that was done is there, and none that was never sent; each is there once."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")

    async def main(server: PostgresServer) -> None:
        url = f"{server.unix_url}?application_name=load&timeout=60s"
        async with aio.connect(url, kind=aio.Postgres) as db:
            await db.execute("CREATE TABLE load (a int)")
            load = Load(db, random.Random(seed))
            tasks = [asyncio.ensure_future(load.task(number)) for number in range(TASKS)]
            await load.more(2000)
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'load'"
            assert await db.fetchval(count) == 4
            if how == "terminate":
                end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'load'"
                await asyncio.to_thread(server.psql, end)
            else:
                await asyncio.to_thread(getattr(server, how))
                await asyncio.sleep(0.05)
                await asyncio.to_thread(server.start)
            await load.more(2000)
            load.stop = True
            await asyncio.gather(*tasks)
            rows = [row["a"] for row in await db.fetch("SELECT a FROM load")]
            there = set(rows)
            assert len(rows) == len(there)
            assert there <= load.ended.keys()
            ended: dict[str, set[int]] = {}
            for key, outcome in load.ended.items():
                ended.setdefault(outcome, set()).add(key)
            assert ended["done"] <= there
            assert not ended.get("never-sent", set()) & there
            assert ended.keys() <= {"done", "never-sent", "maybe-executed", "cancelled"}
            assert db.stats()["disconnects"] >= 4
            if how != "kill":
                assert "57P01" in db.stats()["last_failure"] or "57P01" in str(load.errors)

    with PostgresServer() as server:
        asyncio.run(main(server))


def test_fewer_connections_than_wanted() -> None:
    """The server has room for two of four: all calls are served by those."""
    with PostgresServer(["max_connections = 2", "superuser_reserved_connections = 0"]) as server:

        async def main() -> None:
            async with aio.connect(f"{server.unix_url}?timeout=60s", kind=aio.Postgres) as db:
                values = await asyncio.gather(
                    *[db.fetchval("SELECT $1::int", key) for key in range(TASKS)]
                )
                assert values == list(range(TASKS))
                while "too many" not in db.stats()["last_failure"]:
                    await asyncio.sleep(0.01)
                while (
                    db.stats()["connections"] != 2
                ):  # the server may free a refused one's place late
                    await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(main(), 60))
