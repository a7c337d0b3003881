"""PostgreSQL that refuses, goes away and comes back; TLS and its modes."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import ssl
import threading
import time

import iokernel
import pytest
from iokernel import postgres, sync
from iokernel.sync import Postgres
from kit.help import until
from kit.postgres import PASSWORD, PostgresServer
from kit.servers import make_certificates

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("", True),
        ("?sslmode=disable", False),
        ("?sslmode=prefer", True),
        ("?sslmode=require", True),
        ("?sslmode=verify-ca&sslrootcert={ca}", True),
        ("?sslmode=verify-ca&sslrootcert={ca}&tls_name=wrong.test", True),
        ("?sslmode=verify-full&sslrootcert={ca}", True),
        ("?sslmode=verify-full&tls_ca={ca}", True),
        ("?sslmode=verify-full&sslrootcert={ca}&tls_name=wrong.test", "hostname mismatch"),
        ("?sslmode=verify-full", "certificate verify failed"),
        ("?sslmode=require&sslrootcert={ca}", True),
    ],
)
def test_tls(shared_postgres: PostgresServer, options: str, encrypted: bool | str) -> None:
    url = shared_postgres.url + options.format(ca=shared_postgres.directory / "ca.crt")
    with sync.connect(url, kind=Postgres) as db:
        if isinstance(encrypted, str):
            with pytest.raises(iokernel.Unavailable, match=encrypted):
                db.fetchval(ENCRYPTED)
        else:
            assert [db.fetchval(ENCRYPTED) for _ in range(2)] == [encrypted, encrypted]


def test_sign_in_methods() -> None:
    hba = [
        "host all md5 127.0.0.1/32 md5",
        "host all clear 127.0.0.1/32 password",
        "host all free 127.0.0.1/32 trust",
    ]
    with PostgresServer(hba=hba) as server:
        server.psql("CREATE USER free")
        server.psql(f"CREATE USER clear PASSWORD '{PASSWORD}'")
        server.psql(f"SET password_encryption = md5; CREATE USER md5 PASSWORD '{PASSWORD}'")
        place = f"127.0.0.1:{server.port}/app"
        password = PASSWORD.replace(" ", "%20")
        for user in ("free", f"md5:{password}", f"app:{password}"):
            with sync.connect(f"postgres://{user}@{place}", kind=Postgres) as db:
                assert db.fetchval("SELECT user") == user.partition(":")[0]
        for url, wanted in (
            (f"postgres://clear:{password}@{place}", "clear text"),
            (f"postgres://app:wrong@{place}", "password authentication failed"),
            (f"postgres://md5:wrong@{place}", "password authentication failed"),
            (f"postgres://app@{place}", "the URL has none"),
            (f"postgres://nobody:x@{place}", "password authentication failed"),
            (f"postgres://free@{place}nowhere", 'database "appnowhere" does not exist'),
            (f"postgres://free@{place}?sslmode=require", "does not speak TLS"),
            (f"postgres://free@{place}?options=-c%20nonsense=1", "unrecognized configuration"),
        ):
            with sync.connect(url, kind=Postgres) as db:
                with pytest.raises(iokernel.Error, match=wanted) as caught:
                    db.fetchval("SELECT 1")
                assert caught.value.outcome == "never-sent"
        clear = f"postgres://clear:{password}@{place}?cleartext=yes"
        with sync.connect(clear, kind=Postgres) as db:
            assert db.fetchval("SELECT user") == "clear"


def test_session_options(shared_postgres: PostgresServer) -> None:
    url = (
        f"{shared_postgres.unix_url}?dbname=postgres&application_name=me&options=-c%20work_mem=7MB"
    )
    with sync.connect(url, kind=Postgres) as db:
        got = db.fetchrow(
            "SELECT current_database(), current_setting('work_mem'), current_setting('application_name')"
        )
        assert got == ("postgres", "7MB", "me")
    url = f"{shared_postgres.unix_url}?options=-c%20statement_timeout=50"
    with sync.connect(url, kind=Postgres) as db:
        with pytest.raises(postgres.QueryCanceled):
            db.fetch("SELECT pg_sleep(30)", timeout=60)
        assert db.fetchval("SELECT 1") == 1


def test_ended_backends(shared_postgres: PostgresServer) -> None:
    """A connection that the server ends is replaced; what was under way on it says so truly."""
    url = f"{shared_postgres.unix_url}?application_name=ended&connections=1"
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ended'"
    with sync.connect(url, kind=Postgres) as db:
        assert db.fetchval("SELECT 1") == 1

        def answers() -> bool:
            try:
                return bool(db.fetchval("SELECT 1") == 1)
            except iokernel.MaybeExecuted:  # sent just before the connection's end was seen
                return False

        shared_postgres.psql(kill)
        until(answers)
        assert db.stats()["disconnects"] == 1
        assert "57P01" in db.stats()["last_failure"]
        ended: list[BaseException] = []

        def sleep() -> None:
            try:
                db.fetch("SELECT pg_sleep(60)", timeout=120)
            except iokernel.Error as error:
                ended.append(error)

        thread = threading.Thread(target=sleep)
        thread.start()
        running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ended' AND query ~ 'sleep' AND state = 'active'"
        until(lambda: shared_postgres.psql(running) == "1")
        shared_postgres.psql(kill)
        thread.join()
        assert isinstance(ended[0], iokernel.MaybeExecuted)
        assert "57P01" in str(ended[0])
        assert db.fetchval("SELECT 2") == 2


def test_too_many_connections() -> None:
    with PostgresServer(["max_connections = 5", "superuser_reserved_connections = 0"]) as server:
        held = sync.connect(f"{server.unix_url}?connections=5", kind=Postgres)
        until(lambda: held.stats()["connections"] == 5)
        with sync.connect(f"{server.unix_url}?connections=1", kind=Postgres) as db:
            with pytest.raises(iokernel.Unavailable, match="too many clients"):
                db.fetch("SELECT 1", timeout=1)
            held.close()
            assert db.fetchval("SELECT 1", timeout=30) == 1


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_restart_under_load(how: str) -> None:
    """Each insert that is said to be done is there, and none that was never sent."""
    with PostgresServer() as server:
        with sync.connect(f"{server.unix_url}?timeout=60s", kind=Postgres) as db:
            db.execute("CREATE TABLE load (a int)")
            outcomes: dict[int, str] = {}
            stop = threading.Event()

            def work(number: int) -> None:
                key = number * 1_000_000
                while not stop.is_set():
                    key += 1
                    try:
                        db.execute("INSERT INTO load VALUES ($1)", key)
                        outcomes[key] = "done"
                    except iokernel.Error as error:
                        outcomes[key] = error.outcome
                        time.sleep(0.01)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
            for thread in threads:
                thread.start()
            until(lambda: len(outcomes) > 300)
            getattr(server, how)()
            time.sleep(0.1)
            server.start()
            done = len(outcomes)
            until(lambda: len(outcomes) > done + 300)
            stop.set()
            for thread in threads:
                thread.join()
            there = {row["a"] for row in db.fetch("SELECT a FROM load")}
            assert db.fetchval("SELECT count(*) FROM load") == len(there)
            assert {key for key, outcome in outcomes.items() if outcome == "done"} <= there
            assert not {key for key, outcome in outcomes.items() if outcome == "never-sent"} & there
            assert there <= outcomes.keys()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("?sslmode=require&channel_binding=require", None),
        ("?sslmode=require&channel_binding=prefer", None),
        ("?sslmode=require&channel_binding=disable", None),
        ("?sslmode=disable&channel_binding=require", "there is no TLS"),
    ],
)
def test_channel_binding(shared_postgres: PostgresServer, options: str, wanted: str | None) -> None:
    with sync.connect(shared_postgres.url + options, kind=Postgres) as db:
        if wanted is None:
            assert db.fetchval("SELECT user", timeout=20) == "app"
        else:
            with pytest.raises(iokernel.Unavailable, match=wanted):
                db.fetchval("SELECT user", timeout=20)


def test_channel_binding_is_not_given_up() -> None:
    """A server that signs in by something else, or lets in without a password."""
    with PostgresServer(
        hba=["host all md5 127.0.0.1/32 md5", "host all free 127.0.0.1/32 trust"], tls=True
    ) as server:
        server.psql("CREATE USER free")
        server.psql(f"SET password_encryption = md5; CREATE USER md5 PASSWORD '{PASSWORD}'")
        for user in ("md5", "free"):
            url = server.url.replace("app:", f"{user}:") + "?channel_binding="
            with sync.connect(url + "require", kind=Postgres) as db:
                with pytest.raises(iokernel.Unavailable, match="signs in without it"):
                    db.fetchval("SELECT user", timeout=20)
            with sync.connect(url + "prefer", kind=Postgres) as db:
                assert db.fetchval("SELECT user", timeout=20) == user


class InBetween(threading.Thread):
    """Somebody who speaks TLS with both sides, with a certificate of his own for the client."""

    ASK = b"\0\0\0\x08\x04\xd2\x16\x2f"

    def __init__(self, port: int, directory: pathlib.Path) -> None:
        super().__init__(daemon=True)
        make_certificates(directory)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "server.crt", directory / "server.key")
        self.server = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        with contextlib.suppress(OSError), client, socket.create_connection(self.server) as server:
            assert client.recv(8, socket.MSG_WAITALL) == self.ASK
            client.sendall(b"S")
            server.sendall(self.ASK)
            assert server.recv(1) == b"S"
            with (
                self.context.wrap_socket(client, server_side=True) as near,
                trusting.wrap_socket(server) as far,
            ):
                back = threading.Thread(target=self.copy, args=(far, near), daemon=True)
                back.start()
                self.copy(near, far)
                back.join()  # else it may write to whoever gets the descriptor next

    @staticmethod
    def copy(source: ssl.SSLSocket, target: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


def test_somebody_in_between(shared_postgres: PostgresServer, tmp_path: pathlib.Path) -> None:
    """Without a look at the certificate, only the bound sign-in shows that there is somebody."""
    between = InBetween(shared_postgres.port, tmp_path)
    url = shared_postgres.url.replace(str(shared_postgres.port), str(between.port))
    try:
        with sync.connect(f"{url}?sslmode=require&channel_binding=disable", kind=Postgres) as db:
            assert db.fetchval("SELECT user", timeout=20) == "app"
        with sync.connect(f"{url}?sslmode=require", kind=Postgres) as db:
            with pytest.raises(iokernel.Unavailable, match="channel binding"):
                db.fetchval("SELECT user", timeout=20)
    finally:
        between.listener.close()


def test_statement_timeout(shared_postgres: PostgresServer) -> None:
    with sync.connect(f"{shared_postgres.unix_url}?statement_timeout=50ms", kind=Postgres) as db:
        assert db.fetchval("SHOW statement_timeout") == "50ms"
        with pytest.raises(postgres.QueryCanceled):
            db.fetch("SELECT pg_sleep(30)", timeout=60)
        assert db.fetchval("SELECT 1") == 1


def test_protocol_version(shared_postgres: PostgresServer) -> None:
    """The newest version is asked for; a server that does not have it says so, and all goes on."""
    url = f"{shared_postgres.unix_url}?max_protocol_version=latest"
    with sync.connect(f"{url}&connections=1", kind=Postgres) as db:
        pid = db.fetchval("SELECT pg_backend_pid()", timeout=20)
        with pytest.raises(iokernel.Timeout):
            db.fetch("SELECT pg_sleep(600)", timeout=0.1)
        assert db.fetchval("SELECT pg_backend_pid()", timeout=20) == pid  # by its key
    if int(shared_postgres.psql("SHOW server_version_num")) < 180000:
        with sync.connect(f"{url}&min_protocol_version=3.2", kind=Postgres) as db:
            with pytest.raises(iokernel.NeverSent, match=r"speaks protocol 3\.0"):
                db.fetchval("SELECT 1", timeout=20)
