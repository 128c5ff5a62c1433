"""Authentication: the caller by the key of a request, or by where it comes from.

1. A key stands in `Authorization: Bearer`, `X-API-Key` or, for operators alone, `X-Admin-Key`. Two different
   keys are refused, because either could be the one that counts.
2. A key that is given must be valid, and then counts alone, in development mode too.
3. An unknown id and a wrong secret take the same code path and get the same answer.
4. A peer may also present the secret that the configuration names for its domain.
   A key proves one domain at most; one with several scopes for peers is refused.
5. An admin key counts on listeners with the role `admin`. Elsewhere it is answered like an invalid key.
6. Without a key the caller is anonymous; in development mode, a program of the gateway's own user on this machine,
   which no web page sent and no proxy let through, may speak for any local agent.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import Protocol

from gateway.admit.api_key import ApiKey, digest_of, parse_key, same_digest
from gateway.admit.caller import ADMIN, Caller
from gateway.admit.remembered import DirectoryWatch, Remembered
from gateway.journal.journal import Journal
from gateway.net.shares import Holder
from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.keys import PEER, KnownKey, find_keys, peers_of
from gateway.store.clock import Clock
from gateway.store.database import Database

ValuesOf = Callable[[str], Sequence[str]]  # every value of a header of the request at hand

# Headers that only a web page, or a proxy in front of us, sends.
SENT_BY_OTHERS = ("Origin", "Referer", "Sec-Fetch-Site", "Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")

AUTHORITY = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?")
NO_DIGEST = bytes(32)  # compared with if there is no such key, so that it takes as long


class Presented(Protocol):
    """A request, as far as it tells who sent it."""

    @property
    def client(self) -> str:
        """Returns the client's address, as far as proxies are trusted."""

    @property
    def roles(self) -> Collection[str]:
        """Returns the roles of the listener."""

    @property
    def authority(self) -> str | None:
        """Returns the host of a target in the absolute form."""

    @property
    def same_user(self) -> bool:
        """Returns whether it comes from this machine, from a program of the gateway's user or of root."""

    def header_values(self, name: str) -> Sequence[str]: ...

    def belongs_to(self, holder: Holder) -> None:
        """Counts what the request holds from now on for its caller."""


class Authenticator:
    """The authentication of requests: turns what a request presents into the caller it proves."""

    def __init__(
        self,
        database: Database,
        watch: DirectoryWatch,
        clock: Clock,
        journal: Journal,
        *,
        used: Callable[[str], None] = lambda _: None,
        development: bool,
        peers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._database = database
        self._clock = clock
        self._journal = journal
        self._used = used  # told the id of each key that opened something
        self._development = development
        self._keys: Remembered[ApiKey, _Holder] = Remembered(watch, self._find, _concerns)
        self.adopt(peers)

    def adopt(self, peers: Mapping[str, str]) -> None:
        """Takes the peers' secrets, to be found by digest: so the look-up time tells nothing of the secret."""
        self._peers = {digest_of(secret): domain for domain, secret in peers.items()}

    async def caller(self, request: Presented) -> Caller:
        """Returns the caller; AUTHENTICATION_FAILED where a key is given and not right."""
        text = presented(request.header_values)
        if text is not None:
            caller = await self._holder(text, request)
        else:
            caller = Caller(request.client, development=self._development and is_of_this_machine(request))
        request.belongs_to(caller.holder)
        return caller

    async def _holder(self, text: str, request: Presented) -> Caller:
        key = parse_key(text)
        if key is None:
            return self._peer(text, request.client)
        holder = self._keys.recall(key)
        if holder is None:
            holder = (await self._keys.find([key])).get(key)
        fault = "wrong_key" if holder is None else holder.fault(self._clock)
        if holder is None or fault is not None:
            raise self._refused(fault or "wrong_key", request.client, key.id)
        caller = holder.caller(request.client)
        if ADMIN in caller.scopes and ADMIN not in request.roles:
            raise self._refused("admin_key_elsewhere", request.client, key.id)
        if ADMIN not in caller.scopes and request.header_values("X-Admin-Key"):
            raise self._refused("no_admin_key", request.client, key.id)
        self._used(key.id)
        return caller

    def _peer(self, text: str, client_address: str) -> Caller:
        domain = self._peers.get(digest_of(text))
        if domain is None:
            raise self._refused("wrong_key", client_address, "")
        scope = f"{PEER}{domain}"
        return Caller(client_address, scopes=frozenset({scope}), name=scope, proven_domain=domain)

    def _refused(self, kind: str, client_address: str, key: str) -> AMTPError:
        """Returns the same error for every invalid key, and journals what was wrong with it."""
        self._journal.security(kind, client_address, key=key)
        return wrong_key()

    async def _find(self, presented: Collection[ApiKey]) -> tuple[int, Mapping[ApiKey, "_Holder"]]:
        version, live = await find_keys(self._database, [key.id for key in presented])
        found = {}
        for key in presented:
            known = live.get(key.id)
            if same_digest(known.digest if known else NO_DIGEST, key.digest) and known:
                found[key] = _Holder(known)
        return version, found


def _concerns(key: ApiKey, holder: "_Holder") -> tuple[str, ...]:
    """Returns the directory names that a change of this key, or of its holder, is noted under."""
    return (key.id,) if holder.agent is None else (key.id, holder.agent)


class _Holder:
    """The holder of a key, valid or ended, with the caller made for it last."""

    __slots__ = ("_key", "_last", "_several_peers")

    def __init__(self, key: KnownKey) -> None:
        self._key = key
        self._several_peers = len(peers_of(key.scopes)) > 1
        self._last = _caller_of(key, "")

    @property
    def agent(self) -> str | None:
        return self._key.agent

    def caller(self, client_address: str) -> Caller:
        if self._last.address != client_address:
            self._last = _caller_of(self._key, client_address)
        return self._last

    def fault(self, clock: Clock) -> str | None:
        """Returns why the key is invalid, as the journal names it; None for a valid one."""
        if self._key.ended is not None:
            return self._key.ended
        if self._key.expires_at is not None and self._key.expires_at <= clock.now():
            return "expired_key"
        return "several_peers" if self._several_peers else None


def _caller_of(key: KnownKey, client_address: str) -> Caller:
    peer = next(iter(peers_of(key.scopes)), None)
    return Caller(client_address, key.agent, key.scopes, key.name or key.id, key.id, proven_domain=peer)


def presented(values_of: ValuesOf) -> str | None:
    """Returns the one key among the headers that may carry one."""
    keys = [*values_of("X-API-Key"), *values_of("X-Admin-Key")]
    for value in values_of("Authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise AMTPError(
                Code.AUTHENTICATION_FAILED,
                "The Authorization header must read: Bearer, a blank, and your key.",
            )
        keys.append(token.strip())
    if len(keys) > 1 and len(set(keys)) > 1:
        raise AMTPError(
            Code.AUTHENTICATION_FAILED,
            "The request carries several different keys; send the one that counts.",
        )
    return keys[0] if keys else None


def wrong_key() -> AMTPError:
    return AMTPError(
        Code.AUTHENTICATION_FAILED, "The key is not valid: check it, or ask the operator for a new one."
    )


def is_of_this_machine(request: Presented) -> bool:
    """Returns whether a program of the gateway's own user on this machine sent the request for itself."""
    authority = request.authority
    return (
        from_this_machine(request.header_values, request.client)
        and (authority is None or is_loopback(host_of(authority)))
        and request.same_user
    )


def from_this_machine(values_of: ValuesOf, client_address: str) -> bool:
    """Returns whether a program on this machine sent the request for itself, as far as headers and address tell."""
    hosts = values_of("Host")
    return (
        is_loopback(client_address)
        and len(hosts) == 1
        and is_loopback(host_of(hosts[0]))
        and not any(values_of(name) for name in SENT_BY_OTHERS)
    )


def is_loopback(host: str) -> bool:
    """Returns whether the host is this machine itself: a loopback address, or `localhost`; other names may change."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """Returns the host of a Host header, without brackets and port; "" where it is malformed."""
    match = AUTHORITY.fullmatch(authority)
    return (match[1] or match[2]) if match else ""
