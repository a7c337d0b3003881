"""libpq's meanings: TLS or not in two ways, keys with a passphrase, certificates in the home, passwords beyond ASCII."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from urllib.parse import quote

import iokernel
import pytest
from iokernel import sync
from iokernel.sync import Postgres
from kit.postgres import PASSWORD, PostgresServer
from kit.servers import make_certificates

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
CERTIFICATE = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """A home with nothing of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".postgresql").mkdir()
    return tmp_path / ".postgresql"


@pytest.fixture(scope="module")
def choosy() -> Iterator[PostgresServer]:
    """A server that has its own idea of who needs TLS, for each user."""
    hba = [
        "hostssl all tls,either,certified 127.0.0.1/32 trust",
        "hostnossl all plain,either 127.0.0.1/32 trust",
        "host all tls,plain,certified,nobody 127.0.0.1/32 reject",
    ]
    hba[0:0] = ["hostssl all certified 127.0.0.1/32 trust clientcert=verify-ca"]
    with PostgresServer(hba=hba, tls=True) as server:
        for user in ("tls", "plain", "either", "certified", "nobody"):
            server.psql(f"CREATE USER {user}")
        yield server


def url_of(server: PostgresServer, user: str, options: str = "") -> str:
    return f"postgresql://{user}@127.0.0.1:{server.port}/app?connections=1&{options}"


def ask(url: str, sql: str = ENCRYPTED) -> object:
    with sync.connect(url, kind=Postgres) as db:
        return db.fetchval(sql, timeout=30)


@pytest.mark.parametrize(
    ("mode", "user", "encrypted"),
    [
        ("allow", "either", False),
        ("allow", "plain", False),
        ("allow", "tls", True),
        ("prefer", "either", True),
        ("prefer", "tls", True),
        ("prefer", "plain", False),
        ("disable", "tls", "no encryption|pg_hba.conf"),
        ("require", "plain", "pg_hba.conf"),
        ("prefer", "nobody", "pg_hba.conf rejects.*; without TLS: .*pg_hba.conf rejects"),
        ("allow", "nobody", "pg_hba.conf rejects.*; with TLS: .*pg_hba.conf rejects"),
    ],
)
def test_two_ways(choosy: PostgresServer, mode: str, user: str, encrypted: bool | str) -> None:
    url = url_of(choosy, user, f"sslmode={mode}")
    if isinstance(encrypted, bool):
        assert ask(url) is encrypted
        with sync.connect(url, kind=Postgres) as db, db.transaction() as tx:
            assert tx.fetchval(ENCRYPTED) is encrypted  # a lease's connection, too
    else:
        with pytest.raises(iokernel.NeverSent, match=encrypted):
            ask(url)


def test_a_wrong_password_is_wrong_once(shared_postgres: PostgresServer) -> None:
    for mode in ("prefer", "allow"):
        wrong = f"postgresql://app:wrong@127.0.0.1:{shared_postgres.port}/app?sslmode={mode}"
        with pytest.raises(iokernel.Unavailable, match="password authentication failed") as caught:
            ask(wrong)
        assert "TLS" not in str(caught.value)


def test_failed_tls(choosy: PostgresServer, tmp_path: pathlib.Path) -> None:
    """A certificate that the server does not take: prefer goes on without TLS, require does not."""
    make_certificates(tmp_path)
    ours = f"sslcert={tmp_path}/client.crt&sslkey={tmp_path}/client.key"
    with pytest.raises(iokernel.NeverSent, match="unknown ca|TLS"):
        ask(url_of(choosy, "either", f"sslmode=require&{ours}"))
    assert ask(url_of(choosy, "either", f"sslmode=prefer&{ours}")) is False
    with pytest.raises(iokernel.NeverSent, match="; without TLS: .*no encryption"):
        ask(url_of(choosy, "tls", f"sslmode=prefer&{ours}"))
    # The second connection by which a statement is cancelled is made as the first one was.
    url = url_of(choosy, "either", f"sslmode=prefer&cancel_timeout=20s&{ours}")
    with sync.connect(url, kind=Postgres) as db:
        pid = db.fetchval("SELECT pg_backend_pid()", timeout=30)
        with pytest.raises(iokernel.Timeout):
            db.fetch("SELECT pg_sleep(600)", timeout=0.1)
        assert db.fetchval("SELECT pg_backend_pid()", timeout=30) == pid


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o600)


def test_keys_with_a_passphrase(choosy: PostgresServer, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "encrypted.key"
    plain = choosy.directory / "client.key"
    encrypt = ["openssl", "pkey", "-aes256", "-passout", "pass:open & sesame"]
    subprocess.run([*encrypt, "-in", plain, "-out", key], check=True, capture_output=True)
    key.chmod(0o600)
    certificate = f"sslmode=require&sslcert={choosy.directory}/client.crt&sslkey={key}"
    url = url_of(choosy, "certified", f"{certificate}&sslpassword=open%20%26%20sesame")
    assert ask(url, CERTIFICATE) == "/CN=test client"
    with sync.connect(url, kind=Postgres) as db:
        assert "sesame" not in db.url
    for options, why in (
        ("&sslpassword=wrong", "with this passphrase"),
        ("", "without a passphrase"),
    ):
        with pytest.raises(iokernel.Error, match=why) as caught:
            ask(url_of(choosy, "certified", certificate + options))
        assert (caught.value.code, "wrong" in str(caught.value)) == ("IOK_ETLS", False)


def test_certificates_of_the_home(choosy: PostgresServer, home: pathlib.Path) -> None:
    url = url_of(choosy, "certified", "sslmode=verify-full")
    with pytest.raises(iokernel.NeverSent, match="certificate verify failed"):
        ask(url)
    copy(choosy.directory / "ca.crt", home / "root.crt")
    with pytest.raises(iokernel.NeverSent, match="valid client certificate"):
        ask(url)
    copy(choosy.directory / "client.crt", home / "postgresql.crt")
    with pytest.raises(iokernel.Error, match="private key"):
        ask(url)
    copy(choosy.directory / "client.key", home / "postgresql.key")
    assert ask(url, CERTIFICATE) == "/CN=test client"
    # The key of the home goes with another certificate, too.
    assert ask(f"{url}&sslcert={choosy.directory}/client.crt", CERTIFICATE) == "/CN=test client"
    # With an authority, require is verify-ca.
    make_certificates(home)
    copy(home / "ca.crt", home / "root.crt")
    with pytest.raises(iokernel.NeverSent, match="certificate verify failed"):
        ask(url_of(choosy, "either", "sslmode=require"))
    assert ask(url_of(choosy, "either", f"sslmode=require&sslrootcert={choosy.directory}/ca.crt"))


def test_who_may_read_the_key(choosy: PostgresServer, home: pathlib.Path) -> None:
    for name in ("crt", "key"):
        copy(choosy.directory / f"client.{name}", home / f"postgresql.{name}")
    key = home / "postgresql.key"
    url = url_of(choosy, "certified", "sslmode=require")
    for mode in (0o604, 0o620, 0o666):
        key.chmod(mode)
        with pytest.raises(iokernel.Error, match="others may read the private key") as caught:
            ask(url)
        assert caught.value.code == "IOK_ETLS"
    assert ask(url_of(choosy, "either", "sslmode=disable")) is False  # it is not used
    key.chmod(0o640)
    if os.geteuid() == 0:
        assert ask(url, CERTIFICATE) == "/CN=test client"
        shutil.chown(key, 12345)
    with pytest.raises(iokernel.Error, match="others may read the private key"):
        ask(url)
    key.chmod(0o400)
    assert ask(url, CERTIFICATE) == "/CN=test client"
    key.unlink()
    key.mkdir()
    with pytest.raises(iokernel.Error, match="not a plain file"):
        ask(url)


def write_crl(server: PostgresServer, place: pathlib.Path, revoked: bool) -> pathlib.Path:
    """What the server's authority has revoked."""
    (place / "index.txt").write_text("")
    lines = ["[ca]", "default_ca=x", "[x]", "database=index.txt", "default_md=sha256"]
    (place / "ca.cnf").write_text("\n".join([*lines, "default_crl_days=2"]) + "\n")
    authority = ("-cert", server.directory / "ca.crt", "-keyfile", server.directory / "ca.key")
    command = ["openssl", "ca", "-config", "ca.cnf", *authority]
    if revoked:
        revoke = ["-revoke", server.directory / "server.crt"]
        subprocess.run([*command, *revoke], cwd=place, check=True, capture_output=True)
    subprocess.run(
        [*command, "-gencrl", "-out", "list"], cwd=place, check=True, capture_output=True
    )
    return place / "list"


def test_revoked_certificates(
    choosy: PostgresServer, home: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    url = url_of(choosy, "either", "sslmode=verify-full")
    harmless = write_crl(choosy, tmp_path, revoked=False)
    assert ask(f"{url}&sslrootcert={choosy.directory}/ca.crt&sslcrl={harmless}") is True
    revoking = write_crl(choosy, tmp_path, revoked=True)
    copy(revoking, home / "root.crl")
    with pytest.raises(iokernel.NeverSent, match="certificate revoked"):
        ask(f"{url}&sslrootcert={choosy.directory}/ca.crt")
    with pytest.raises(iokernel.Error, match="revoked certificates in PEM"):
        ask(f"{url}&sslrootcert={choosy.directory}/ca.crt&sslcrl={home}/nowhere")


def test_the_systems_authorities(
    choosy: PostgresServer, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sslrootcert=system: not the home's, and the name counts, as anybody has such a certificate."""
    copy(choosy.directory / "ca.crt", home / "root.crt")
    with pytest.raises(iokernel.NeverSent, match="certificate verify failed"):
        ask(url_of(choosy, "either", "sslrootcert=system"))
    with pytest.raises(iokernel.URLError, match="verify-full only"):
        ask(url_of(choosy, "either", "sslrootcert=system&sslmode=require"))
    monkeypatch.setenv("SSL_CERT_FILE", str(choosy.directory / "ca.crt"))  # OpenSSL's own
    assert ask(url_of(choosy, "either", "sslrootcert=system")) is True
    with pytest.raises(iokernel.NeverSent, match="hostname mismatch"):
        ask(url_of(choosy, "either", "sslrootcert=system&tls_name=wrong.test"))


@pytest.mark.parametrize(
    ("stored", "given", "fits"),
    [
        (r"I\00adX", "IX", True),
        (r"I\00adX", "\u2168", True),
        (r"\2168\00fc", "IXu\u0308", True),
        (r"\2168\00fc", "IXu", False),
        (r"a\00a0b", "a b", True),
        (r"pw\200e", "pw\u200e", True),  # prohibited, so it stays
        (r"pw\200e", "pw", False),
        (r"\0627\0031", "\u06271", True),  # to the left and ends with a digit: the same
        (r"\+01d400\1100\1161", "A\uac00", True),
    ],
)
def test_passwords_beyond_ascii(
    shared_postgres: PostgresServer, stored: str, given: str, fits: bool
) -> None:
    """As the server prepares them by SASLprep when they are set."""
    shared_postgres.psql(
        f"DROP USER IF EXISTS prepared; CREATE USER prepared PASSWORD U&'{stored}'"
    )
    url = f"postgresql://prepared:{quote(given)}@127.0.0.1:{shared_postgres.port}/app"
    if fits:
        assert ask(url, "SELECT user") == "prepared"
    else:
        with pytest.raises(iokernel.Unavailable, match="password authentication failed"):
            ask(url)


def test_required_ways(shared_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(f"{shared_postgres.url}?require_auth=scram-sha-256", "SELECT 1") == 1
    with pytest.raises(iokernel.Unavailable, match="which is scram-sha-256"):
        ask(f"{shared_postgres.url}?require_auth=!scram-sha-256", "SELECT 1")
    monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")
    with pytest.raises(iokernel.Unavailable, match="which is none"):
        ask(shared_postgres.unix_url, "SELECT 1")
    monkeypatch.setenv("PGREQUIREAUTH", "none")
    assert ask(shared_postgres.unix_url, "SELECT 1") == 1
    assert PASSWORD not in shared_postgres.unix_url
