"""Domains elsewhere that can prove themselves here, so that mail in their name needs the proof."""

from collections.abc import Collection, Mapping

from gateway.admit.remembered import DirectoryWatch, Remembered
from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.keys import NAMED_KEYS, peer_domains
from gateway.store.database import Database

ALL = "all"  # the one name under which the list is remembered


class Provable:
    """The domains for which a key exists: one of the configuration, or a key made with a `peer:` scope."""

    def __init__(self, database: Database, watch: DirectoryWatch, configured: Mapping[str, bool]) -> None:
        self._database = database
        self._keys: Remembered[str, frozenset[str]] = Remembered(watch, self._find, lambda *_: (NAMED_KEYS,))
        self.adopt(configured)

    def adopt(self, configured: Mapping[str, bool]) -> None:
        """Takes the domains with a `proving_key`, and whether mail without it is still accepted."""
        self._configured = frozenset(configured)
        self._lenient = frozenset(domain for domain, lenient in configured.items() if lenient)

    async def domains(self) -> frozenset[str]:
        """Returns them all, from memory while nothing changed."""
        made = self._keys.recall(ALL)
        if made is None:
            made = (await self._keys.find([ALL]))[ALL]
        return made | self._configured

    async def check_unproven(self, domain: str) -> None:
        """Raises where unproven mail of this domain is not accepted."""
        if domain not in self._lenient and domain in await self.domains():
            raise AMTPError(
                Code.AUTHENTICATION_FAILED,
                f"Mail from {domain} takes the key agreed on with it: send it as Authorization: Bearer.",
                {"field": "sender"},
            )

    async def _find(self, names: Collection[str]) -> tuple[int, Mapping[str, frozenset[str]]]:
        version, domains = await peer_domains(self._database)
        return version, dict.fromkeys(names, domains)
