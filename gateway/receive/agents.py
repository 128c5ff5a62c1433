"""The endpoints for registering agents, for operators, and for discovering them, for every caller with a key."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from gateway.admit.api_key import ApiKey, mint_key
from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.admit.remembered import DirectoryWatch
from gateway.admit.rules import require_admin, require_known, require_registrar
from gateway.http.answers import Answer, answer_json
from gateway.http.request import JSON, Request, bad_parameter
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.protocol.address import RESERVED, Address, parse_address, parse_domain
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.fields import fault
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.agent_profile import (
    BODY_BYTES_MAX,
    Described,
    Registration,
    Statement,
    TargetFault,
    mint_secret,
    read_body,
    read_rotation,
    read_secret_rotation,
    read_statement,
    render_agent,
    render_brought_back,
    render_discovered,
    render_key,
    render_made,
)
from gateway.receive.openapi_operations import (
    CHANGE_AGENT,
    DISCOVER,
    DISCOVER_OF_DOMAIN,
    FIND_AGENTS,
    REGISTER,
    RETIRE_AGENT,
    ROTATE_KEY,
    ROTATE_PUSH_SECRET,
    SHOW_AGENT,
)
from gateway.store.agents.agents import Agent, Agents, Profile, Search
from gateway.store.agents.keys import NewKey
from gateway.store.agents.push_secrets import replace_secret
from gateway.store.clock import Clock
from gateway.store.row_ids import Mint
from gateway.store.sealed import Sealer

LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
TEXT_CHARACTERS_MAX = 256  # of a search term
ACTIVE = timedelta(days=30)  # agents seen since then count as recently active

OPERATORS = frozenset({Role.ADMIN})
AGENTS = frozenset({Role.PUBLIC, Role.AGENTS})

KEEP_NEW = "Keep the push_secret: it is not shown again."
KEEP_KEY = "Keep the api_key: it is not shown again."
KEEP_BOTH = "Keep the api_key and the push_secret: they are not shown again."


class AgentDoor:
    """The endpoints that register, show, change, retire and discover agents."""

    def __init__(
        self,
        *,
        agents: Agents,
        authenticator: Authenticator,
        watch: DirectoryWatch,
        sealer: Sealer,
        clock: Clock,
        mint: Mint,
        domains: Sequence[str],
        target_fault: TargetFault,
        development: bool,
    ) -> None:
        self._agents = agents
        self._authenticator = authenticator
        self._watch = watch
        self._sealer = sealer
        self._clock = clock
        self._mint = mint
        self._domains = tuple(domains)
        self._target_fault = target_fault
        self._development = development

    def routes(self) -> list[Route]:
        one = "/v1/admin/agents/{local}"
        return [
            Route("POST", "/v1/admin/agents", self.register, OPERATORS, REGISTER),
            Route("GET", "/v1/admin/agents", self.find, OPERATORS, FIND_AGENTS),
            Route("GET", one, self.show, OPERATORS, SHOW_AGENT),
            Route("PATCH", one, self.update, OPERATORS, CHANGE_AGENT),
            Route("DELETE", one, self.delete, OPERATORS, RETIRE_AGENT),
            Route("POST", f"{one}/rotate-key", self.rotate_key, OPERATORS, ROTATE_KEY),
            Route(
                "POST", f"{one}/rotate-push-secret", self.rotate_push_secret, OPERATORS, ROTATE_PUSH_SECRET
            ),
            Route("GET", "/v1/discovery/agents", self.discover, AGENTS, DISCOVER),
            Route("GET", "/v1/discovery/agents/{domain}", self.discover, AGENTS, DISCOVER_OF_DOMAIN),
        ]

    async def register(self, request: Request) -> Answer:
        actor = require_registrar(await self._caller(request))
        said = read_body(await request.json_body(BODY_BYTES_MAX), Registration)
        address = self._new_address(said.address)
        statement = read_statement(said, self._target_fault)
        if statement.delivery_mode == "push" and statement.push_url is None:
            raise fault("push_target", "is missing", "delivery_mode push needs an https URL to post to")
        minted = mint_secret() if statement.push_url and statement.push_secret is None else None
        key = mint_key()
        agent = await self._agents.register(
            address.local, address.domain, self._profile(statement, minted), _new(key), actor
        )
        self._watch.forget(agent.name)
        shown = render_agent(agent, api_key=key.text, push_secret=minted)
        keep, back = KEEP_BOTH if minted else KEEP_KEY, agent.brought_back
        if back is None:
            return answer_json({"agent": shown, "message": f"Agent registered. {keep}"}, 201)
        told = f"Agent registered again, with the inbox of before. {keep}"
        if back.disabled:
            told += " Its webhooks of before are disabled: look at them, and enable those that are good."
        return answer_json({"agent": shown, "message": told, "brought_back": render_brought_back(back)}, 201)

    async def find(self, request: Request) -> Answer:
        await self._operator(request)
        return answer_json(await self._page(request, self._search(request.query), render_agent))

    async def show(self, request: Request) -> Answer:
        await self._operator(request)
        agent = await self._agents.get(self._named(request))
        keys = [render_key(key) for key in await self._agents.keys(agent)]
        return answer_json({"agent": {**render_agent(agent), "keys": keys}})

    async def update(self, request: Request) -> Answer:
        actor = await self._operator(request)
        name = self._changeable(request)
        said = read_body(await request.json_body(BODY_BYTES_MAX), Described)
        statement = read_statement(said, self._target_fault)
        minted = await self._missing_secret(name, statement)
        agent = await self._agents.update(name, self._profile(statement, minted), actor)
        self._watch.forget(agent.name)
        return answer_json({"agent": render_agent(agent, push_secret=minted), "message": "Agent changed."})

    async def rotate_key(self, request: Request) -> Answer:
        actor = await self._operator(request)
        name = self._changeable(request)
        said = read_rotation(await _optional_body(request))
        key, drop = mint_key(), self._mint() if said.drop else None
        agent, made = await self._agents.rotate_key(name, _new(key), said.grace_seconds, actor, drop=drop)
        self._watch.forget(agent.name)
        ends = self._clock.now() + timedelta(seconds=said.grace_seconds)
        return answer_json(
            {
                "agent": render_agent(agent, api_key=key.text),
                "previous_key_ends_at": render_timestamp(ends),
                "made_before": render_made(made, dropped=said.drop),
                "message": f"Key rotated. {KEEP_KEY}",
            }
        )

    async def rotate_push_secret(self, request: Request) -> Answer:
        actor = await self._operator(request)
        name = self._changeable(request)
        grace_seconds, own = read_secret_rotation(await _optional_body(request))
        fresh, now = own or mint_secret(), self._clock.now()
        ends = now + timedelta(seconds=grace_seconds)

        def replaced(sealed: bytes | None) -> bytes:
            before = self._sealer.open(sealed) if sealed else ""
            return self._sealer.seal(replace_secret(before, fresh, ends, now))

        details = {"grace_seconds": grace_seconds}
        agent = await self._agents.replace_push_secrets(name, replaced, details, actor)
        self._watch.forget(agent.name)
        return answer_json(
            {
                "agent": render_agent(agent, push_secret=None if own else fresh),
                "previous_secret_ends_at": render_timestamp(ends),
                "message": "Secret changed." if own else f"Secret rotated. {KEEP_NEW}",
            }
        )

    async def delete(self, request: Request) -> Answer:
        caller, name = await self._caller(request), self._changeable(request)
        mail = request.query.get("mail")
        # In development mode programs register and retire themselves, with the key they got at registration.
        leaving = self._development and mail is None and caller.agent == name
        actor = name if leaving else require_admin(caller)
        if mail is None:
            agent = await self._agents.retire(name, actor)
            told = "Agent retired: its keys are dead, its inbox goes on accepting."
        elif mail in {"return", "drop"}:
            agent = await self._agents.remove(name, mail, actor)
            told = f"Agent removed: its open mail is {'returned' if mail == 'return' else 'dropped'}."
        else:
            raise bad_parameter("mail", "must be return or drop; without it the agent is only retired")
        self._watch.forget(agent.name)
        return answer_json({"agent": render_agent(agent), "message": told})

    async def discover(self, request: Request) -> Answer:
        caller = await self._authenticator.caller(request)
        require_known(caller)
        query = request.query
        search = replace(
            self._search(query),
            state="active",
            hidden=False,
            active_within=ACTIVE if _one_of(query, "active_only", ("true", "false")) == "true" else None,
        )
        if "domain" in request.params:
            search = replace(search, domain=self._served(request.params["domain"]))
        page = await self._page(request, search, render_discovered)
        page["agent_count"] = page.pop("count")
        page["domain"] = search.domain or (self._domains[0] if len(self._domains) == 1 else None)
        page["timestamp"] = render_timestamp(self._clock.now())
        return answer_json(page)

    async def _operator(self, request: Request) -> str:
        return require_admin(await self._caller(request))

    async def _caller(self, request: Request) -> Caller:
        return await self._authenticator.caller(request)

    def _new_address(self, text: str) -> Address:
        address = parse_address(self._full(text, "address"), "address")
        if address.tag:
            raise fault("address", "has a tag", f"register {address.name}; it gets the mail of every tag")
        if address.local in RESERVED:
            raise fault("address", "is reserved", "choose another name before the @")
        if address.domain not in self._domains:
            raise fault("address", "is of another domain", f"this gateway serves {', '.join(self._domains)}")
        return address

    def _named(self, request: Request) -> str:
        """Returns the agent name in the path; raises AGENT_UNKNOWN if it can't be one."""
        text = request.params["local"]
        return parse_address(self._full(text, "the path"), "the path", Code.AGENT_UNKNOWN).name

    def _changeable(self, request: Request) -> str:
        name = self._named(request)
        if name.partition("@")[0] in RESERVED:
            raise AMTPError(Code.POLICY_DENIED, f"{name} belongs to the gateway itself and stays as it is.")
        return name

    def _full(self, text: str, field: str) -> str:
        if "@" in text:
            return text
        if len(self._domains) > 1:
            raise fault(field, "names no domain", f"write {text[:64]}@ and one of {', '.join(self._domains)}")
        return f"{text}@{self._domains[0]}"

    def _served(self, text: str) -> str:
        domain = parse_domain(text, "domain")
        if domain not in self._domains:
            raise AMTPError(Code.NOT_FOUND, f"This gateway serves {', '.join(self._domains)} only.")
        return domain

    def _profile(self, statement: Statement, minted: str | None) -> Profile:
        secret = statement.push_secret or minted
        return Profile(
            delivery_mode=statement.delivery_mode,
            push_url=statement.push_url,
            push_secrets=self._sealer.seal(secret) if secret else None,
            details=statement.details,
        )

    async def _missing_secret(self, name: str, statement: Statement) -> str | None:
        """Returns a new secret if the agent gets its first push URL without one of its own."""
        if statement.push_url is None or statement.push_secret is not None:
            return None
        return None if (await self._agents.get(name)).push_secured else mint_secret()

    def _search(self, query: Mapping[str, str]) -> Search:
        return Search(
            domain=self._served(query["domain"]) if "domain" in query else None,
            state=_one_of(query, "state", ("active", "retired")),
            delivery_mode=_one_of(query, "delivery_mode", ("pull", "push")),
            schema=_term(query, "schema"),
            text=_term(query, "q"),
        )

    async def _page(self, request: Request, search: Search, render: Any) -> dict[str, Any]:
        limit = _limit(request.query)
        found: Sequence[Agent] = await self._agents.find(
            search, _term(request.query, "cursor") or "", limit + 1
        )
        page: dict[str, Any] = {"agents": [render(agent) for agent in found[:limit]]}
        page["count"] = len(page["agents"])
        page["has_more"] = len(found) > limit
        if page["has_more"]:
            page["cursor"] = found[limit - 1].name
        return page


async def _optional_body(request: Request) -> bytes:
    raw = await request.body(BODY_BYTES_MAX)
    if raw:
        request.require_content_type(JSON)
    return raw


def _new(key: ApiKey) -> NewKey:
    return NewKey(key.id, key.digest)


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(LIMIT_DEFAULT))
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= LIMIT_MAX):
        raise bad_parameter("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def _one_of(query: Mapping[str, str], name: str, allowed: Collection[str]) -> str | None:
    value = query.get(name)
    if value is not None and value not in allowed:
        raise bad_parameter(name, f"must be {' or '.join(allowed)}")
    return value


def _term(query: Mapping[str, str], name: str) -> str | None:
    value = query.get(name)
    if value is not None and not 0 < len(value) <= TEXT_CHARACTERS_MAX:
        raise bad_parameter(name, f"must have 1 to {TEXT_CHARACTERS_MAX} characters")
    return value
