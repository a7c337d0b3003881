"""What a URL leaves open: service files, PG* variables, the password file, the usual values; in libpq's order."""

from __future__ import annotations

import os
import pathlib

import iokernel
import pytest
from iokernel import sync
from iokernel.sync import Postgres
from kit.postgres import PASSWORD, PostgresServer


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Nothing of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path / "nowhere"))


def write(path: pathlib.Path, text: str, mode: int = 0o600) -> pathlib.Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def ask(url: str, what: str = "current_setting('application_name')") -> object:
    with sync.connect(url, kind=Postgres) as db:
        return db.fetchval(f"SELECT {what}", timeout=20)


def test_all_by_variables(shared_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(shared_postgres.port),
        "PGUSER": "app",
        "PGPASSWORD": PASSWORD,
        "PGDATABASE": "app",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(shared_postgres.directory / "ca.crt"),
        "PGAPPNAME": "by name & more",
        "PGOPTIONS": "-c work_mem=7MB",
        "PGCONNECT_TIMEOUT": "7",
        "PGTARGETSESSIONATTRS": "read-write",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with sync.connect("postgresql:///", kind=Postgres) as db:
        got = db.fetchrow(
            "SELECT current_setting('application_name'), current_setting('work_mem'), "
            "current_database(), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
        assert got == ("by name & more", "7MB", "app", True)
        assert PASSWORD not in db.url and "s3cret" not in db.url
    # What the URL says counts.
    assert ask("postgresql:///postgres?application_name=x&sslmode=disable") == "x"
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    monkeypatch.setenv("PGPORT", "1")
    assert ask(shared_postgres.url) == "by name & more"
    assert ask(shared_postgres.unix_url) == "by name & more"
    monkeypatch.setenv("PGHOST", str(shared_postgres.directory))
    monkeypatch.setenv("PGPORT", str(shared_postgres.port))
    assert ask("postgresql:///", "inet_server_addr() IS NULL") is True


def test_wrong_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "perhaps")
    with pytest.raises(iokernel.URLError, match="sslmode= takes"):
        sync.connect("postgresql://app@127.0.0.1/app")
    monkeypatch.delenv("PGSSLMODE")
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
    with pytest.raises(iokernel.URLError, match="PGHOSTADDR"):
        sync.connect("postgresql:///app")
    with pytest.raises(iokernel.URLError, match="given twice"):
        sync.connect("postgresql://a:b@127.0.0.1/app?password=c")


def test_service(
    shared_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    text = f"""
# a comment
[other]
host=nowhere.invalid

[mine]
host = 127.0.0.1
port={shared_postgres.port}
user=app
password={PASSWORD}
dbname=app
keepalives=1
application_name=of the service
"""
    write(tmp_path / ".pg_service.conf", text)
    monkeypatch.setenv("PGAPPNAME", "of the environment")
    assert ask("postgresql:///?service=mine") == "of the service"
    assert ask("postgresql:///?service=mine&application_name=own") == "own"
    monkeypatch.setenv("PGSERVICE", "mine")
    assert ask("postgresql://") == "of the service"
    with pytest.raises(iokernel.URLError, match="service=lost is in no service file"):
        sync.connect("postgresql:///?service=lost")
    own = write(tmp_path / "own.conf", "[mine]\nrequirepeer=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(own))
    with pytest.raises(iokernel.URLError, match="'requirepeer' is not possible"):
        sync.connect("postgresql://")
    write(own, "[mine]\nnonsense\n")
    with pytest.raises(iokernel.URLError, match="neither name=value"):
        sync.connect("postgresql://")
    monkeypatch.delenv("PGSERVICEFILE")
    (tmp_path / ".pg_service.conf").unlink()
    (tmp_path / "nowhere").mkdir()
    write(tmp_path / "nowhere" / "pg_service.conf", text)
    assert ask("postgresql://") == "of the service"


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("127.0.0.1:{port}:app:app:{password}", True),
        ("*:*:*:*:{password}", True),
        ("# 1\n\nother:*:*:*:x\n127.0.0.1:1:*:*:x\n*:*:*:app:{password}\n*:*:*:*:x", True),
        ("*:*:*:*:wrong\n*:*:*:*:{password}", False),
        ("127.0.0.1:{port}:app2:app:{password}", False),
        ("127.0.0.1:{port}:ap:app:{password}", False),
        ("127\\.0.0.1:{port}:app:app:{password}", True),
        ("*:*:*", False),
    ],
)
def test_password_file(
    shared_postgres: PostgresServer, tmp_path: pathlib.Path, line: str, fits: bool
) -> None:
    password = PASSWORD.replace("s", "\\s")
    text = line.format(port=shared_postgres.port, password=password)
    write(tmp_path / ".pgpass", text + "\n")
    url = f"postgresql://app@127.0.0.1:{shared_postgres.port}/app"
    if fits:
        assert ask(url, "user") == "app"
    else:
        with pytest.raises(iokernel.Unavailable, match="password"):
            ask(url)


def test_password_file_of_others(
    shared_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """As libpq: one that others can read is as if it were not there."""
    path = write(tmp_path / "pass", f"*:*:*:*:{PASSWORD}", 0o640)
    url = f"postgresql://app@127.0.0.1:{shared_postgres.port}/app?passfile={path}"
    with pytest.raises(iokernel.Unavailable, match="nobody else may read"):
        ask(url)
    path.chmod(0o600)
    assert ask(url, "user") == "app"
    monkeypatch.setenv("PGPASSFILE", str(path))
    assert ask(url.partition("?")[0], "user") == "app"
    monkeypatch.setenv("PGPASSWORD", "wrong")  # goes before the file
    with pytest.raises(iokernel.Unavailable, match="password authentication failed"):
        ask(url)


def test_passwords_of_several_hosts(tmp_path: pathlib.Path) -> None:
    write(tmp_path / ".pgpass", "a.invalid:*:*:*:x\nb.invalid:*:*:*:y\n")
    with pytest.raises(iokernel.URLError, match="different passwords"):
        sync.connect("postgresql://app@a.invalid,b.invalid/app")
