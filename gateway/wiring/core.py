"""The parts of a gateway: each is built once and given to those that need it."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from gateway import __version__
from gateway.admit.authenticate import Authenticator
from gateway.admit.checks import Checks
from gateway.admit.provable import Provable
from gateway.admit.remembered import DirectoryWatch
from gateway.admit.residents import Residents
from gateway.admit.restored import RestoredCheck
from gateway.admit.strangers import Strangers
from gateway.config.settings import Config
from gateway.deliver.courier import COURIER_SECONDS
from gateway.deliver.couriers import Courier, Couriers, InboxCourier, LaterCourier, NowhereCourier
from gateway.deliver.peer import PeerCourier
from gateway.deliver.webhook import WebhookCourier
from gateway.features.feature import Base, Core, Plug
from gateway.flow.accept import Accept
from gateway.flow.carry import Carry
from gateway.flow.housekeeping import Chore, Housekeeping
from gateway.flow.immediate import Immediate
from gateway.flow.lanes import Lanes
from gateway.flow.worker import Worker
from gateway.http.limits import Load
from gateway.journal.journal import Journal
from gateway.net.outbound import Outbound
from gateway.net.tls import client_context
from gateway.postgres.embedded import FREE_BYTES_MIN, free_bytes
from gateway.receive.held_open import HeldOpen
from gateway.receive.parsing import LARGE_BODIES_MAX, Parsing
from gateway.report.consequences import Aftermath
from gateway.report.interests import Interests
from gateway.report.postmaster import Postmaster
from gateway.report.receipts import Receipts
from gateway.report.undelivered import UndeliveredCheck
from gateway.route.configured import nameservers_of, plain_domains, static_peers
from gateway.route.decide import DOWNGRADE_DAYS, STALE_DAYS_MAX
from gateway.route.destination import Destination
from gateway.route.directory import Directory
from gateway.route.dns import Dns
from gateway.route.memories import StoredMemories
from gateway.route.outage import Outage
from gateway.route.placing import Placing
from gateway.route.ways import Here, NotNow, NoWay, Pushed, Way, WayFinder
from gateway.store import partitions, retention, tallies
from gateway.store.agents import keys, removal
from gateway.store.agents.agents import Agents
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.health import ailment
from gateway.store.inbox import poison
from gateway.store.inbox.activity import Activity
from gateway.store.inbox.unproven import unproven_bytes
from gateway.store.intake.intake import Intake
from gateway.store.messages.correspondence import known_there
from gateway.store.queue import contacts, destinations, discovered
from gateway.store.queue.settle import Settle
from gateway.store.row_ids import Mint
from gateway.store.runtime import Runtime
from gateway.store.sealed import Sealer
from gateway.store.wakeups.bell import Bell
from gateway.store.wakeups.direct import Straight
from gateway.store.wakeups.replies import Replies

POSTMASTER_ENTRIES_MAX = 10_000  # beyond these the oldest unread mail is removed


class Parts:
    """The parts of a gateway."""

    def __init__(
        self,
        config: Config,
        database: Database,
        clock: Clock,
        journal: Journal,
        features: Sequence[Plug],
        *,
        processes: int = 1,
    ) -> None:
        """`processes` is the number of processes that share this gateway's ports."""
        self.config, self.database, self.clock, self.journal = config, database, clock, journal
        self.mint = mint = Mint(clock)
        self.audit = Audit(mint())
        self.bell = Bell(database, journal)
        self.runtime = Runtime(database, clock, mint, journal, self.bell.ring)
        self.base = Base(config, self.runtime, self.audit)
        self.features = [feature(self.base) for feature in features]
        self.watch = DirectoryWatch(partial(keys.directory_changes, database))
        self.activity = Activity(database)
        self.held_open = HeldOpen(self.watch)
        self.authenticator = self._authenticator()
        self.provable = Provable(database, self.watch, _provable(config))
        self.replies = Replies(database, self.bell, self.provable.domains)
        self.residents = Residents(database, self.watch)
        self.strangers = self._strangers(processes)
        self.agents = Agents(
            database, self.audit, [each for feature in self.features for each in feature.leavings]
        )
        self.sealer = Sealer.of(config.data)
        self.straight = Straight(database, self.bell)
        self.intake = Intake(
            database,
            mint,
            journal,
            committed=self.bell.ring,
            promise=self.straight.promise,
            limits=config.limits,
        )
        self.settle = Settle(database, mint, journal, committed=self.bell.ring)
        self.lanes = Lanes(
            clock,
            lease_seconds=config.queue.lease_seconds,
            courier_seconds=COURIER_SECONDS,
            window_max=config.queue.per_destination_window_max,
        )
        self.directory = _directory(config, database, clock, journal)
        self.outbound = _outbound(config, self.directory)
        self.peer = PeerCourier(self.outbound, config, partial(known_there, database), clock)
        self.webhook = WebhookCourier(self.outbound, self.sealer, clock, journal, config.outbound)
        self.placing = self._placing()
        self.interests = Interests([each for feature in self.features for each in feature.interests])
        self.postmaster = self._postmaster()
        self.immediate = Immediate()
        self.accept = self._accept()
        self.carry = self._carry()
        self.worker = self._worker()
        self.load = Load(config.limits)
        self.parsing = Parsing(journal, self.load.pot("large bodies to read", lambda _: LARGE_BODIES_MAX))
        self.entry_books = tallies.EntryBooks(database)
        self.draining = False
        self.faces = [feature.faces(self._core()) for feature in self.features]
        chores = [*self._chores(), *(chore for faces in self.faces for chore in faces.chores)]
        self.housekeeping = Housekeeping(chores, journal)

    def _authenticator(self) -> Authenticator:
        return Authenticator(
            self.database,
            self.watch,
            self.clock,
            self.journal,
            used=self.activity.used,
            development=self.config.development,
            peers=_proving_keys(self.config),
        )

    def _strangers(self, processes: int) -> Strangers:
        return Strangers(
            self.config.limits,
            self.journal,
            partial(unproven_bytes, self.database),
            self._disk_free_bytes,
            processes=processes,
        )

    def _placing(self) -> Placing:
        return Placing(
            self.config.domains,
            self.residents,
            self.strangers,
            self.clock,
            timedelta(days=self.config.queue.horizon_days),
            saw=self.activity.saw,
            takes_at_once=self.lanes.takes_at_once,
        )

    def _core(self) -> Core:
        return Core(
            authenticator=self.authenticator,
            agents=self.agents,
            sealer=self.sealer,
            outbound=self.outbound,
            directory=self.directory,
            lanes=self.lanes,
            interests=self.interests,
            postmaster=self.postmaster,
            accept=self.accept,
            load=self.load,
        )

    def _postmaster(self) -> Postmaster:
        return Postmaster(
            runtime=self.runtime,
            domains=self.config.domains,
            placing=self.placing,
            interests=self.interests,
        )

    def _accept(self) -> Accept:
        config = self.config
        own = (RestoredCheck(), UndeliveredCheck(self.runtime, self.interests))
        return Accept(
            runtime=self.runtime,
            domains=config.domains,
            checks=Checks([*own, *(check for each in self.features for check in each.checks)]),
            placing=self.placing,
            provable=self.provable,
            strangers=self.strangers,
            intake=self.intake,
            interests=self.interests,
            lanes=self.lanes,
            immediate=self.immediate,
        )

    def _carry(self) -> Carry:
        couriers: dict[type[Way], Courier[Any]] = {
            Here: InboxCourier(),
            Pushed: self.webhook,
            Destination: self.peer,
            NoWay: NowhereCourier(),
            NotNow: LaterCourier(),
        }
        return Carry(
            runtime=self.runtime,
            router=WayFinder(self.residents, self.directory),
            couriers=Couriers(couriers),
            settle=self.settle,
            lanes=self.lanes,
            immediate=self.immediate,
            aftermath=Aftermath(self.runtime, self.postmaster, self.audit),
            interests=self.interests,
            attempts_max=self.config.queue.attempts_max,
        )

    def _worker(self) -> Worker:
        return Worker(
            database=self.database,
            lanes=self.lanes,
            carry=self.carry,
            interests=self.interests,
            bell=self.bell,
            journal=self.journal,
            clock=self.clock,
            lease_seconds=self.config.queue.lease_seconds,
            concurrency=self.config.queue.concurrency,
        )

    def _chores(self) -> list[Chore]:
        database, config = self.database, self.config
        receipts = Receipts(self.runtime, self.postmaster)
        return [
            Chore("expiry", 5, self.worker.expire),
            Chore("mail of strangers", 5, self.strangers.look),
            Chore("receipts", 2, receipts.send),
            Chore("late mail", 60, lambda: self.postmaster.tell_delays(self.config.queue.delay_report_hours)),
            Chore(
                "poison",
                5,
                lambda: poison.bury(
                    database,
                    self.journal,
                    lapses_max=config.inbox.poison_lapses,
                    riders=self.interests.undigested,
                ),
            ),
            Chore("activity", 30, self.activity.write),
            Chore("old keys", 3600, lambda: keys.forget(database, self.config.retention.audit_days)),
            Chore("removed agents", 30, lambda: removal.clear_removed(database, self.mint)),
            Chore(
                "postmasters",
                600,
                lambda: removal.bound_postmasters(database, self.mint, POSTMASTER_ENTRIES_MAX),
            ),
            Chore("disk", 5, self._look_at_disk),
            Chore("conservation", 15, self._measure),
            Chore("entries", 15, self._measure_entries),
            Chore("tallies", 60, lambda: tallies.fold(database)),
            Chore("partitions", 3600, lambda: partitions.keep_ahead(database)),
            Chore("retention", 600, lambda: retention.forget(database, self.mint, self.config.retention)),
            Chore("hosts", 3600, lambda: discovered.forget_hosts(database, STALE_DAYS_MAX)),
            Chore("domains", 3600, lambda: discovered.forget_domains(database, DOWNGRADE_DAYS)),
            Chore("pauses", 60, lambda: destinations.forget_quiet(database)),
            Chore("contacts", 30, lambda: self.lanes.contacts.write(database)),
            Chore("strangers", 3600, lambda: contacts.forget_strangers(database)),
        ]

    def adopt(self, config: Config) -> None:
        """Applies the reloadable settings; raises, and changes nothing, if a peer's files are unusable."""
        self.peer.adopt(config)
        self.directory.adopt(static_peers(config), plain_domains(config))
        self.authenticator.adopt(_proving_keys(config))
        self.provable.adopt(_provable(config))
        self.strangers.adopt(config.limits)
        self.intake.adopt(config.limits)
        self.config = self.base.config = config

    async def _look_at_disk(self) -> None:
        self.journal.disk_measured(free_bytes(self.config.data), FREE_BYTES_MIN)

    async def _measure(self) -> None:
        counted = await tallies.balance(self.database)
        live = {"queued": counted.queued, "held": counted.held}
        if not self.journal.database_up and await ailment(self.database) is None:
            self.journal.database_found()  # without traffic, no commit would notice
        self.journal.measured(live, counted.oldest_seconds, counted.unaccounted)

    async def _measure_entries(self) -> None:
        unaccounted = await self.entry_books.measure()
        if unaccounted is not None:
            self.journal.entries_measured(unaccounted)

    def _disk_free_bytes(self) -> int | None:
        """Returns the free bytes of the disk; None for an external database, whose disk is unknown."""
        return None if self.config.database.url else free_bytes(self.config.data)

    def disk_has_room(self) -> bool:
        """Returns False when the disk is nearly full: new mail is refused before the embedded Postgres stops."""
        return bool(self.config.database.url) or free_bytes(self.config.data) >= FREE_BYTES_MIN


def _directory(config: Config, database: Database, clock: Clock, journal: Journal) -> Directory:
    return Directory(
        Dns(nameservers_of(config), question_seconds=config.dns.timeout_seconds),
        clock,
        StoredMemories(database),
        Outage(clock, journal),
        peers=static_peers(config),
        plain_domains=plain_domains(config),
    )


def _outbound(config: Config, directory: Directory) -> Outbound:
    return Outbound(
        directory.resolve_host,
        client_context(more=config.outbound.ca_file),
        agent=f"AMTP/1.0 (amtp-gateway/{__version__})",
        allow=config.outbound.allow_networks,
        connect_seconds=config.outbound.connect_seconds,
        requests_max=config.outbound.requests,
        kept_max=config.outbound.connections_kept,
    )


def _proving_keys(config: Config) -> dict[str, str]:
    return {domain: peer.proving_key for domain, peer in config.peers.items() if peer.proving_key}


def _provable(config: Config) -> dict[str, bool]:
    """Returns the domains with a proving key, and for each whether unproven mail is accepted from it."""
    return {domain: peer.accept_unproven for domain, peer in config.peers.items() if peer.proving_key}
