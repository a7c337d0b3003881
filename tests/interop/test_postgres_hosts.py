"""Several hosts: a primary with a streaming standby, wishes, reads from standbys, promotion under load."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator

import iokernel
import pytest
from iokernel import postgres, sync
from iokernel.asyncio import Postgres as AsyncPostgres
from iokernel.asyncio import connect as connect_asyncio
from iokernel.sync import Postgres
from kit.help import until
from kit.pgbouncer import PgBouncer
from kit.postgres import PASSWORD, REPLICATION, PostgresServer, PostgresStandby
from kit.servers import free_port

WHO = f"app:{PASSWORD.replace(' ', '%20')}"
PORT = "SELECT current_setting('port')::int"
STANDBY = "SELECT pg_is_in_recovery()"


def url(*servers: PostgresServer, options: str = "") -> str:
    """All servers, in this order."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://{WHO}@{hosts}/app?{options}"


def wish(*servers: PostgresServer, wish: str, options: str = "") -> str:
    return url(*servers, options=f"target_session_attrs={wish}&{options}")


class Pair:
    """A primary and its standby."""

    def __init__(self) -> None:
        self.primary = PostgresServer(hba=[REPLICATION])
        try:
            self.standby = PostgresStandby(self.primary)
        except BaseException:
            self.primary.close()
            raise

    def close(self) -> None:
        self.standby.close()
        self.primary.close()

    def synchronous(self) -> None:
        """From now on a commit is acknowledged when the standby shows it."""
        self.primary.psql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        self.primary.psql("ALTER SYSTEM SET synchronous_commit = remote_apply")
        self.primary.psql("SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'standby'"
        until(lambda: self.primary.psql(state) == "sync")


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[Pair]:
    """For tests that leave it as it is."""
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """For a test that may do with it what it likes."""
    pair = Pair()
    yield pair
    pair.close()


@pytest.mark.parametrize(
    ("attrs", "found"),
    [
        ("any", "standby"),
        ("primary", "primary"),
        ("read-write", "primary"),
        ("standby", "standby"),
        ("read-only", "standby"),
        ("prefer-standby", "standby"),
    ],
)
def test_wishes(shared_pair: Pair, attrs: str, found: str) -> None:
    """The standby is named first; the wish decides."""
    primary, standby = shared_pair.primary, shared_pair.standby
    wanted = getattr(shared_pair, found).port
    with sync.connect(wish(standby, primary, wish=attrs), kind=Postgres) as db:
        assert {db.fetchval(PORT) for _ in range(20)} == {wanted}
        until(lambda: db.stats()["connections"] == 4)
        assert {db.fetchval(PORT) for _ in range(20)} == {wanted}
        with db.transaction() as tx:
            assert tx.fetchval(PORT) == wanted


def test_read_only_by_default(shared_pair: Pair) -> None:
    """A primary whose sessions are read-only is one for primary, not for read-write."""
    primary = shared_pair.primary
    options = "options=-c%20default_transaction_read_only%3Don&timeout=1s"
    with sync.connect(wish(primary, wish="read-only", options=options), kind=Postgres) as db:
        assert db.fetchval(PORT) == primary.port
    with sync.connect(wish(primary, wish="read-write", options=options), kind=Postgres) as db:
        with pytest.raises(iokernel.Unavailable, match="a read-only primary"):
            db.fetchval(PORT)
    with sync.connect(wish(primary, wish="primary", options=options), kind=Postgres) as db:
        assert db.fetchval(PORT) == primary.port
        until(lambda: db.stats()["connections"] == 4)
        connects = db.stats()["connects"]
        with pytest.raises(postgres.ReadOnlyTransaction) as caught:
            db.execute("CREATE TABLE refused ()")
        assert caught.value.outcome == "done"
        assert db.stats()["connects"] == connects


def test_wishes_in_vain(shared_pair: Pair) -> None:
    primary, standby = shared_pair.primary, shared_pair.standby
    nobody = f"127.0.0.1:{free_port()}"
    with sync.connect(wish(standby, wish="primary"), kind=Postgres) as db:
        with pytest.raises(
            iokernel.Unavailable, match="it is a standby, and the wish is a primary"
        ):
            db.fetchval(PORT, timeout=0.5)
    place = f"postgresql://{WHO}@{nobody},127.0.0.1:{primary.port}/app?target_session_attrs=standby"
    with sync.connect(place, kind=Postgres) as db:
        with pytest.raises(iokernel.Unavailable) as caught:
            db.fetchval(PORT, timeout=0.5)
        assert "refused" in str(caught.value)
        assert "it is a primary" in str(caught.value)
        assert f":{primary.port}: it" in str(caught.value)
        assert caught.value.outcome == "never-sent"
    with sync.connect(wish(primary, wish="prefer-standby"), kind=Postgres) as db:
        assert db.fetchval(STANDBY) is False
        with pytest.raises(iokernel.Unavailable):
            sync.connect(f"postgresql://{WHO}@{nobody},{nobody}/app", kind=Postgres).fetchval(
                PORT, timeout=0.5
            )


def test_forms(shared_pair: Pair) -> None:
    """Hosts and ports as options, directories of sockets, a host that is down."""
    primary, standby = shared_pair.primary, shared_pair.standby
    down = free_port()
    ports = f"{standby.port},{primary.port}"
    there = str(primary.directory).replace("/", "%2F")
    for place in (
        f"/app?host=127.0.0.1,127.0.0.1&port={ports}&target_session_attrs=primary",
        f"127.0.0.1,127.0.0.1/app?port={ports}&target_session_attrs=read-write",
        f"/app?host={primary.directory}&port={primary.port}",
        f"{there}:{primary.port}/app",
        f"127.0.0.1:{down},{there}:{primary.port}/app?sslmode=require",
        f"127.0.0.1:{down},127.0.0.1:{primary.port}/app",
    ):
        with sync.connect(f"postgresql://{WHO}@{place}", kind=Postgres) as db:
            assert db.fetchval(PORT, timeout=30) == primary.port, place


def test_all_hosts_at_random(shared_pair: Pair) -> None:
    servers = (shared_pair.primary, shared_pair.standby)
    with sync.connect(
        url(*servers, options="load_balance_hosts=random&connections=16"), kind=Postgres
    ) as db:
        until(lambda: db.stats()["connections"] == 16)
        many = db.call_many([(PORT,)] * 200)
        assert {reply[2][0][0] for reply in many} == {server.port for server in servers}


def test_replica(shared_pair: Pair) -> None:
    """Reads by choice go to the standby; its writes are refused, and say so."""
    primary, standby = shared_pair.primary, shared_pair.standby
    with sync.connect(wish(primary, standby, wish="primary"), kind=Postgres) as db:
        with db.replica() as reads:
            assert reads.fetchval(PORT) == standby.port
            assert db.fetchval(PORT) == primary.port
            with pytest.raises(postgres.ReadOnlyTransaction) as caught:
                reads.execute("CREATE TABLE refused ()")
            assert caught.value.outcome == "done"
            with reads.transaction(readonly=True) as tx:
                assert tx.fetchval(PORT) == standby.port
            assert "prefer-standby" in reads.url
            assert PASSWORD not in reads.url
    with sync.connect(url(primary), kind=Postgres) as db, db.replica() as reads:
        assert reads.fetchval(PORT) == primary.port


def test_replica_falls_back(pair: Pair) -> None:
    primary, standby = pair.primary, pair.standby
    with sync.connect(wish(primary, standby, wish="primary"), kind=Postgres) as db:
        reads = db.replica()
        assert reads.fetchval(PORT) == standby.port
        standby.stop()
        assert reads.fetchval(PORT, timeout=30) == primary.port
        standby.start()
        until(lambda: reads.fetchval(PORT, timeout=30) == standby.port)
        until(lambda: reads.stats()["connections"] == 4)
        assert {reads.fetchval(PORT) for _ in range(20)} == {standby.port}
        reads.close()


def test_refused_writes_find_the_primary(pair: Pair) -> None:
    """A server that does not write any more, and has not said so, as behind a name that moved."""
    primary = pair.primary
    primary.psql("CREATE TABLE moved (a int)")
    with sync.connect(wish(primary, wish="read-write"), kind=Postgres) as db:
        assert db.execute("INSERT INTO moved VALUES (1)") == "INSERT 0 1"
        connects = db.stats()["connects"]
        # transaction_read_only is not reported, and a function's setting lasts while it runs.
        db.execute(
            "CREATE FUNCTION refused() RETURNS int LANGUAGE sql VOLATILE SET transaction_read_only = on "
            "AS 'INSERT INTO moved VALUES (2) RETURNING a'"
        )
        with pytest.raises(postgres.ReadOnlyTransaction) as caught:
            db.fetchval("SELECT refused()", timeout=30)
        assert isinstance(caught.value, iokernel.Rejected)
        assert db.stats()["connects"] > connects
        assert db.fetchval("SELECT count(*) FROM moved") == 1


class Load:
    """Tasks that write and read; what became of each write."""

    def __init__(self, db: AsyncPostgres, reads: AsyncPostgres) -> None:
        self.db, self.reads = db, reads
        self.keys = itertools.count(1)
        self.outcomes: dict[int, str] = {}
        self.read: Counter[str] = Counter()
        self.stop = False

    async def write(self) -> None:
        while not self.stop:
            key = next(self.keys)
            try:
                await self.db.execute("INSERT INTO load VALUES ($1)", key)
                self.outcomes[key] = "done"
            except iokernel.Error as error:
                self.outcomes[key] = error.outcome
                await asyncio.sleep(0.01)

    async def look(self) -> None:
        while not self.stop:
            try:
                await self.reads.fetchval("SELECT max(a) FROM load", repeatable=True)
                self.read["done"] += 1
            except iokernel.Error as error:
                self.read[error.outcome] += 1
            await asyncio.sleep(0.001)

    async def until(self, what: str) -> None:
        """Until 300 more writes are acknowledged, and some more reads."""
        writes, reads = Counter(self.outcomes.values())["done"], self.read["done"]
        for _ in range(6000):
            await asyncio.sleep(0.01)
            more = Counter(self.outcomes.values())["done"] - writes
            if more > 300 and self.read["done"] > reads + 20:
                return
        raise AssertionError(f"{what}: {Counter(self.outcomes.values())} {self.read}")


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_promotion_under_load(pair: Pair, how: str) -> None:
    """The primary goes, the standby is promoted: no acknowledged write is lost, and the next go there."""
    primary, standby = pair.primary, pair.standby
    primary.psql("CREATE TABLE load (a int)")
    pair.synchronous()

    async def main() -> dict[int, str]:
        place = wish(standby, primary, wish="primary", options="timeout=60s")
        async with connect_asyncio(place, kind=AsyncPostgres) as db:
            async with db.replica() as reads:
                assert await db.fetchval(PORT) == primary.port
                assert await reads.fetchval(PORT) == standby.port
                load = Load(db, reads)
                tasks = [asyncio.create_task(load.write()) for _ in range(30)]
                tasks += [asyncio.create_task(load.look()) for _ in range(10)]
                await load.until("before")
                await asyncio.to_thread(getattr(primary, how))
                await asyncio.to_thread(standby.promote)
                await load.until("after")
                load.stop = True
                await asyncio.gather(*tasks)
                assert await db.fetchval(PORT) == standby.port
                assert await reads.fetchval(PORT) == standby.port  # there is no other
                assert load.read["done"] > 0
                return load.outcomes

    outcomes = asyncio.run(main())
    there = [int(line) for line in standby.psql("SELECT a FROM load").split()]
    by = {
        outcome: {key for key, was in outcomes.items() if was == outcome}
        for outcome in ("done", "never-sent", "maybe-executed", "rejected")
    }
    assert len(there) == len(set(there))
    assert sum(map(len, by.values())) == len(outcomes)
    assert by["done"] <= set(there)
    assert not (by["never-sent"] | by["rejected"]) & set(there)
    assert set(there) <= by["done"] | by["maybe-executed"]
    # What was under way when it went, 30 writes at most; again for each connection that had not seen it yet.
    assert len(by["maybe-executed"]) <= 30 * 4


def test_poolers_that_change_places(shared_pair: Pair) -> None:
    """Behind a pooler a connection meets another server without being told; a refused write finds out."""
    primary, standby = shared_pair.primary, shared_pair.standby
    primary.psql("CREATE TABLE behind (a int)")
    with PgBouncer(standby) as a, PgBouncer(primary) as b:
        place = f"postgresql://app@127.0.0.1:{a.port},127.0.0.1:{b.port}/app?sslmode=disable"
        with sync.connect(f"{place}&target_session_attrs=primary", kind=Postgres) as db:
            with db.replica() as reads:
                assert db.fetchval(PORT) == primary.port
                assert reads.fetchval(PORT) == standby.port
            db.execute("INSERT INTO behind VALUES (1)")
            a.lead_to(primary)
            b.lead_to(standby)
            until(lambda: sync_port(b) == standby.port and sync_port(a) == primary.port)
            db.execute("INSERT INTO behind VALUES (2)", timeout=30)
            assert db.fetchval("SELECT count(*) FROM behind") == 2
            assert db.fetchval(PORT) == primary.port


def sync_port(pooler: PgBouncer) -> int:
    """Of the server that a new connection meets."""
    with sync.connect(pooler.url, kind=Postgres) as db:
        port: int = db.fetchval(PORT)
        return port
