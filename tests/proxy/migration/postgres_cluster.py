"""A PostgreSQL server of the tests' own, in a temporary directory: made, started, and gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import free_ports

_ACCOUNTS = ("postgres", "nobody")  # the server refuses to run as root
_SECONDS = 60.0


def find_programs() -> Path | None:
    """The folder of initdb and postgres: Debian keeps them out of the PATH."""
    beside = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    for folder in [*beside, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def find_account() -> str | None:
    """Whom to run as when this is root; None: as whoever this is."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _ACCOUNTS if name in known), None)


def why_not() -> str | None:
    """Why no server can be started here, or None."""
    if find_programs() is None:
        return "needs PostgreSQL's initdb and postgres (apt-get install postgresql)"
    if os.geteuid() == 0 and find_account() is None:
        return f"PostgreSQL refuses to run as root, and there is no account {' or '.join(_ACCOUNTS)}"
    return None


class PostgresCluster:
    """A server on a free port of 127.0.0.1 that trusts everybody there."""

    def __init__(self) -> None:
        programs = find_programs()
        assert programs is not None, why_not()
        self._programs, self._account = programs, find_account()
        # Not pytest's directory: that one only its owner may enter.
        self._home = Path(tempfile.mkdtemp(prefix="crossfade-postgres-"))
        (self.port,) = free_ports(1)
        self._made = 0
        if self._account is not None:
            shutil.chown(self._home, self._account)

    def __enter__(self) -> Self:
        self._run("initdb", "-D", str(self._home / "data"), "-U", "crossfade", "-A", "trust", "-N", "-E", "UTF8")
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [
            str(self._programs / "postgres"),
            *("-D", str(self._home / "data"), "-k", str(self._home), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1"),
        ]
        with (self._home / "log").open("ab") as log:
            self._server = subprocess.Popen(command, user=self._account, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + _SECONDS
        while self._call("pg_isready", "-h", "127.0.0.1", "-p", str(self.port)).returncode:
            assert self._server.poll() is None, (self._home / "log").read_text()
            assert time.monotonic() < deadline, (self._home / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server at once, as a crash would: it recovers from its log when it is started again."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(_SECONDS)

    def make_database(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        name = f"test{self._made}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "crossfade", name)
        return f"postgresql+psycopg://crossfade@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        done = self._call(program, *arguments)
        assert done.returncode == 0, done.stderr

    def _call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._programs / program), *arguments]
        return subprocess.run(
            command, user=self._account, cwd="/", capture_output=True, text=True, timeout=_SECONDS, check=False
        )
