"""The limit of open files and connections, compared with what the configuration can need."""

import resource
from pathlib import Path

from gateway.config.settings import Config
from gateway.http.places import DESCRIPTORS_KEPT_MAX

MANY = 1_048_576  # Linux's usual maximum for a process; we never ask for more
REMEDY = "raise the limit (LimitNOFILE= in systemd, ulimit -n), or lower limits.connections"


def raise_limit() -> int:
    """Raises this process's limit of descriptors as far as allowed, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY if hard == resource.RLIM_INFINITY else min(hard, MANY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def limit_of(process: int | None) -> int:
    """Returns the limit of a process; with None, that of a process started from here."""
    if process is not None:
        for line in Path(f"/proc/{process}/limits").read_text().splitlines():
            if line.startswith("Max open files"):
                soft = line.split()[3]
                return MANY if soft == "unlimited" else int(soft)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MANY if hard == resource.RLIM_INFINITY else hard


def shortage(config: Config, limit: int) -> str:
    """Returns what is missing if full listeners need more than the limit; empty if nothing is."""
    full = [each for each in config.listen if set(each.roles) != {"admin"}]  # operators are few
    needed = len(full) * config.limits.connections + config.database.pool_size + DESCRIPTORS_KEPT_MAX
    if limit >= needed:
        return ""
    return (
        f"{limit} files and connections may be open, and {needed} are needed where limits.connections"
        f" ({config.limits.connections}) is reached: clients are refused before it"
    )
