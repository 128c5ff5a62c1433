"""The caller of a request, and its proof."""

from dataclasses import dataclass, field
from functools import lru_cache

from gateway.net.shares import Holder, site_of

ADMIN = "admin"
AGENT = "agent"
SUBMIT = "submit"  # may hand in for every local agent; "submit:<address>" for that one
OWNERS_KNOWN = 4096


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller, anonymous unless a field says more: what a key proves, or where the request came from."""

    address: str  # of the client, as far as proxies are believed
    agent: str | None = None  # name of the local agent whose key was presented
    scopes: frozenset[str] = frozenset()
    name: str | None = None  # for the audit: the key's name, or its id
    key: str | None = None  # the key's id
    development: bool = False
    proven_domain: str | None = None  # the foreign domain the caller proved to speak for
    hops: tuple[str, ...] = ()  # HTTP Via as received
    holder: Holder = field(init=False, repr=False, compare=False)  # charged for what its requests hold

    def __post_init__(self) -> None:
        owner = self.agent or self.proven_domain or self.name
        if owner is None and self.development:
            owner = "development"
        holder = _owned(owner) if owner is not None else Holder(site_of(self.address))
        object.__setattr__(self, "holder", holder)

    @property
    def submits(self) -> bool:
        """Returns whether the key may submit for local agents."""
        return any(scope == SUBMIT or scope.startswith(f"{SUBMIT}:") for scope in self.scopes)

    @property
    def known(self) -> bool:
        """Returns whether the caller proved any identity."""
        return self.name is not None or self.proven_domain is not None


@lru_cache(OWNERS_KNOWN)
def _owned(owner: str) -> Holder:
    return Holder(owner=owner)
