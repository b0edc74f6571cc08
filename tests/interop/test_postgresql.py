"""PostgreSQL with pgbench: its invariants hold, and a large COPY comes back whole."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.conftest import Payload
from interop.stage import CLIENT, PORT, SERVER, Stage, need

USER = "nobody"
CLIENTS = 4
TRANSACTIONS = 250
LISTENER_NONBLOCKING_SINCE = 160000  # before, `accept` was called when select(2) said so


def binary(name: str) -> str | None:
    """Debian keeps the server's programs in a folder per version."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return shutil.which(name, path=":".join(str(path) for path in reversed(folders))) or shutil.which(name)


def as_user(*argv: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid", USER, "--regid", str(pwd.getpwnam(USER).pw_gid), "--clear-groups", *argv]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A fresh cluster's folder; pytest's own folders are closed to other users."""
    need("setpriv")
    programs = [name for name in ("initdb", "postgres", "pgbench", "psql") if binary(name) is None]
    if programs:
        pytest.skip(f"needs {', '.join(programs)}")
    folder = Path(tempfile.mkdtemp(prefix="zerohop-interop-"))
    try:
        os.chown(folder, pwd.getpwnam(USER).pw_uid, -1)
        initdb = binary("initdb")
        assert initdb
        subprocess.run(
            as_user(initdb, "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--locale", "C", "--no-sync"),
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
            cwd=folder,
        )
        yield folder
    finally:
        shutil.rmtree(folder)


def test_postgresql(play: Stage, cluster: Path, files: Payload) -> None:
    postgres, pgbench, psql = (binary(name) for name in ("postgres", "pgbench", "psql"))
    assert postgres
    assert pgbench
    assert psql
    settings = {"port": PORT, "listen_addresses": "127.0.0.1", "unix_socket_directories": cluster, "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    server = play.serve(SERVER, as_user(postgres, "-D", str(cluster / "data"), *options), PORT)
    connect = ["-h", "127.0.0.1", "-p", str(PORT), "-U", "postgres"]

    def ask(statement: str) -> str:
        return play.run(CLIENT, [psql, *connect, "-AtX", "-v", "ON_ERROR_STOP=1", "-c", statement]).strip()

    play.run(CLIENT, [pgbench, *connect, "-i", "-s", "1", "-q", "postgres"])
    for mode in ("simple", "extended", "prepared"):
        output = play.run(
            CLIENT,
            [pgbench, *connect, "-n", "-M", mode, "-c", str(CLIENTS), "-j", "2", "-t", str(TRANSACTIONS), "postgres"],
        )
        done = CLIENTS * TRANSACTIONS
        assert f"number of transactions actually processed: {done}/{done}" in output
    sums = ask(
        "SELECT (SELECT count(*) FROM pgbench_history), (SELECT sum(delta) FROM pgbench_history),"
        " (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
        " (SELECT sum(bbalance) FROM pgbench_branches)"
    ).split("|")
    assert sums[0] == str(3 * CLIENTS * TRANSACTIONS)
    assert len(set(sums[1:])) == 1

    # 16 MB in one row, in and out by COPY.
    value = (files.folder / "large").read_bytes().hex()
    source, target = play.folder / "in.txt", play.folder / "out.txt"
    source.write_text(value + "\n")
    ask("DROP TABLE IF EXISTS large; CREATE TABLE large (content text)")
    ask(f"\\copy large FROM '{source}'")
    assert ask("SELECT encode(sha256(decode(content, 'hex')), 'hex') FROM large") == files.sums["large"]
    ask(f"\\copy large TO '{target}'")
    assert hashlib.sha256(bytes.fromhex(target.read_text())).hexdigest() == files.sums["large"]

    if int(ask("SHOW server_version_num")) >= LISTENER_NONBLOCKING_SINCE:
        play.expect_shortcut(allowed=["bulk"])
    else:
        play.expect_left_out("server_blocking")
    assert play.stop(server, signal.SIGINT) == 0
