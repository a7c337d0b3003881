"""SQLAlchemy on an event loop: many sessions on few connections, cancelling, several loops, the lease itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import uvloop
from iokernel.asyncio import Postgres, PostgresLease, connect, task_factory
from kit.help import auntil
from kit.postgres import PostgresServer
from sqlalchemy import exc, pool
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

TASKS = 50


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "sqla_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int]
    lines: Mapped[list[Line]] = relationship(back_populates="order")


class Line(Base):
    __tablename__ = "sqla_lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("sqla_orders.id"))
    text: Mapped[str]
    order: Mapped[Order] = relationship(back_populates="lines")


@pytest.fixture
def server(shared_postgres: PostgresServer) -> Iterator[PostgresServer]:
    engine = sa.create_engine(url_of(shared_postgres))
    Base.metadata.create_all(engine)
    yield shared_postgres
    Base.metadata.drop_all(engine)
    engine.dispose()


def url_of(server: PostgresServer, **options: str) -> sa.URL:
    where = {"host": str(server.directory), "port": str(server.port)}
    return sa.URL.create(
        "postgresql+iokernel", username="app", database="app", query={**where, **options}
    )


@pytest.mark.parametrize("loop", ["asyncio", "tasks", "uvloop"])
@pytest.mark.parametrize("kind", ["queue", "null"])
def test_fifty_sessions_on_four_connections(server: PostgresServer, kind: str, loop: str) -> None:
    options: dict[str, Any] = {"pool_size": 4, "max_overflow": 0}
    if kind == "null":
        options = {"poolclass": pool.NullPool}
    url = url_of(server, application_name=f"sqla_{kind}", leases="4")
    seen: set[int] = set()

    async def work(sessions: async_sessionmaker[AsyncSession], owner: int) -> None:
        for turn in range(4):
            async with sessions() as session, session.begin():
                session.add(Order(owner=owner, lines=[Line(text=f"{owner}.{turn}")]))
                await session.flush()
                if turn == 3:
                    await session.rollback()
                    continue
                seen.add(await session.scalar(sa.select(sa.func.pg_backend_pid())))
        async with sessions() as session:
            mine = sa.select(Order).where(Order.owner == owner).order_by(Order.id)
            orders = (await session.scalars(mine.options(selectinload(Order.lines)))).all()
            texts = [line.text for order in orders for line in order.lines]
            assert texts == [f"{owner}.{turn}" for turn in range(3)]

    async def main() -> None:
        if loop == "tasks":
            asyncio.get_running_loop().set_task_factory(task_factory)
        engine = create_async_engine(url, **options)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        await asyncio.gather(*(work(sessions, owner) for owner in range(TASKS)))
        async with engine.connect() as connection:
            assert await connection.scalar(sa.select(sa.func.count()).select_from(Order)) == 150
        await engine.dispose()

    run = uvloop.run if loop == "uvloop" else asyncio.run
    run(main())
    assert 1 <= len(seen) <= 4


def test_outcomes_add_up_while_connections_are_killed_and_tasks_cancelled(
    server: PostgresServer,
) -> None:
    """Committed rows are there; those of transactions that ended before their COMMIT was sent are not."""
    url = url_of(server, application_name="sqla_hurt", leases="4")
    committed: set[int] = set()
    unsure: set[int] = set()
    kill = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'sqla_hurt' AND random() < 0.3"
    )

    async def work(engine: AsyncEngine, number: int) -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.insert(Order), {"id": number, "owner": number})
            # What is in the table of this transaction is this task's.
            mine = sa.select(Order.id).where(Order.owner == number)
            assert (await connection.scalars(mine)).all() == [number]
            unsure.add(number)
            try:
                await connection.commit()
            except exc.DBAPIError as error:
                if error.orig.outcome == "never-sent":  # type: ignore[union-attr]
                    unsure.discard(number)
                raise
            unsure.discard(number)
            committed.add(number)

    async def main() -> None:
        engine = create_async_engine(url, pool_size=4, max_overflow=0)
        failed = 0
        for turn in range(8):
            numbers = range(turn * 100, turn * 100 + 40)
            tasks = [asyncio.create_task(work(engine, number)) for number in numbers]
            await auntil(lambda: unsure or committed)
            await asyncio.to_thread(server.psql, kill)
            for task in tasks[::10]:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for error in ended:
                assert error is None or isinstance(error, (exc.DBAPIError, asyncio.CancelledError))
            failed += sum(isinstance(error, exc.DBAPIError) for error in ended)
        await engine.dispose()
        there = set(map(int, server.psql("SELECT id FROM sqla_orders").split()))
        assert committed <= there <= committed | unsure
        assert len(committed) > 100 and failed > 0

    asyncio.run(main())


def test_a_cancelled_query_leaves_the_connection_to_the_next(server: PostgresServer) -> None:
    url = url_of(server, application_name="sqla_cancel", leases="1")

    async def sleep(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(sa.insert(Order), {"owner": 1})
            await connection.execute(sa.text("SELECT pg_sleep(600)"))

    async def main() -> None:
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        async with engine.connect() as connection:
            process = await connection.scalar(sa.select(sa.func.pg_backend_pid()))
        for _ in range(3):
            task = asyncio.create_task(sleep(engine))
            where = f"SELECT query FROM pg_stat_activity WHERE pid = {process}"
            await auntil(lambda where=where: "pg_sleep" in server.psql(where))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with engine.connect() as connection:
                asked = sa.select(sa.func.pg_backend_pid(), sa.func.count(Order.id))
                assert (await connection.execute(asked)).one() == (process, 0)
        await engine.dispose()

    asyncio.run(main())


def test_a_timeout_around_a_query(server: PostgresServer) -> None:
    async def main() -> None:
        engine = create_async_engine(url_of(server), pool_size=1, max_overflow=0)
        async with engine.connect() as connection:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.execute(sa.text("SELECT pg_sleep(600)")), 0.05)
        async with engine.connect() as connection:
            assert await connection.scalar(sa.select(7)) == 7
        await engine.dispose()

    asyncio.run(main())


def test_a_statement_of_the_url_times_out(server: PostgresServer) -> None:
    async def main() -> None:
        engine = create_async_engine(url_of(server, timeout="100ms"), pool_size=1, max_overflow=0)
        async with engine.connect() as connection:
            with pytest.raises(exc.OperationalError) as caught:
                await connection.execute(sa.text("SELECT pg_sleep(600)"))
            assert not caught.value.connection_invalidated
            await connection.rollback()
            assert await connection.scalar(sa.select(7)) == 7
        await engine.dispose()

    asyncio.run(main())


def test_tasks_that_share_a_connection_take_turns(server: PostgresServer) -> None:
    async def main() -> None:
        engine = create_async_engine(url_of(server))
        async with engine.connect() as connection:
            numbers = range(20)
            got = await asyncio.gather(*(connection.scalar(sa.select(n)) for n in numbers))
            assert got == list(numbers)
        await engine.dispose()

    asyncio.run(main())


def test_loops_one_after_the_other(server: PostgresServer) -> None:
    async def ask(engine: AsyncEngine) -> Any:
        async with engine.connect() as connection:
            return await connection.scalar(sa.select(7))

    for options in ({"poolclass": pool.NullPool}, {"pool_pre_ping": True}):
        engine = create_async_engine(url_of(server), **options)
        assert [asyncio.run(ask(engine)) for _ in range(3)] == [7, 7, 7]
        asyncio.run(engine.dispose())


def test_a_connection_that_is_forgotten(server: PostgresServer) -> None:
    async def forget(engine: AsyncEngine) -> Any:
        connection = await engine.connect()
        return await connection.scalar(sa.select(sa.func.pg_backend_pid()))

    async def main() -> None:
        engine = create_async_engine(url_of(server, leases="1"), pool_size=1, max_overflow=0)
        process = await forget(engine)
        with pytest.warns(exc.SAWarning, match="garbage collector"):
            gc.collect()
        async with engine.connect() as connection:
            assert await connection.scalar(sa.select(sa.func.pg_backend_pid())) == process
        await engine.dispose()

    asyncio.run(main())


def test_the_lease_itself(server: PostgresServer) -> None:
    async def main() -> None:
        engine = create_async_engine(url_of(server))
        async with engine.connect() as connection:
            await connection.execute(sa.insert(Order), {"owner": 1})
            raw = await connection.get_raw_connection()
            lease = raw.driver_connection
            assert isinstance(lease, PostgresLease)
            rows = [(i, 2) for i in range(100, 200)]
            await lease.copy_records("sqla_orders", rows, columns=["id", "owner"])
            count = sa.select(sa.func.count(Order.id))
            assert await connection.scalar(count) == 101
            await connection.rollback()
            assert await connection.scalar(count) == 0
        await engine.dispose()

    asyncio.run(main())


def test_an_engine_on_a_client_of_the_program(server: PostgresServer) -> None:
    async def main() -> None:
        async with connect(f"{server.unix_url}?leases=2", kind=Postgres) as db:
            by_service = {"connect_args": {"service": db}}

            async def creator() -> PostgresLease:
                return db.lease()

            for options in (by_service, {"async_creator": creator}):
                engine = create_async_engine("postgresql+iokernel://", **options)
                async with engine.connect() as connection:
                    assert await connection.scalar(sa.select(7)) == 7
                    assert db.stats()["leased"] == 1
                await engine.dispose()

    asyncio.run(main())


def test_rows_as_they_are_asked_for(server: PostgresServer) -> None:
    async def main() -> None:
        engine = create_async_engine(url_of(server))
        async with engine.connect() as connection:
            numbers = sa.text("SELECT g FROM generate_series(1, 1000) g")
            seen = []
            async with connection.stream(numbers, execution_options={"yield_per": 64}) as rows:
                async for (number,) in rows:
                    seen.append(number)
                    if number % 400 == 0:
                        assert await connection.scalar(sa.select(number)) == number
            assert seen == list(range(1, 1001))
        await engine.dispose()

    asyncio.run(main())
