-- oldest: 0.1.0
-- What must outlive a crash. Message ids are UUIDv7, so a range of ids is a range of time: whatever belongs to a
-- message is partitioned by its id, one partition a day, and dropped with it.

-- The one clock. Tests turn it; nothing else sets amtp.clock_offset.
create function amtp_now() returns timestamptz language sql stable parallel safe as $$
    select now() + make_interval(secs => coalesce(nullif(current_setting('amtp.clock_offset', true), ''), '0')::float8)
$$;

-- The smallest UUIDv7 of a moment: the bound of a partition.
create function amtp_first_id(moment timestamptz) returns uuid language sql immutable parallel safe as $$
    select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '7000' || '8000000000000000')::uuid
$$;

create table messages (
    id          uuid primary key,
    public_id   text collate "C",              -- null when minted here: then it is id
    sender      text collate "C" not null,
    proven      boolean not null,              -- the sender proved to be who it says
    in_reply_to text collate "C",
    schema      text collate "C",
    automatic   boolean not null default false, -- causes no report, receipt or answer
    hops        text[],
    body        bytea not null,
    accepted_at timestamptz not null,
    expires_at  timestamptz
) partition by range (id);
alter table messages alter column body set storage external;
create index on messages (sender, id);
create index on messages (public_id) where public_id is not null;

-- Recipients that ended elsewhere than in an inbox here.
create table settled (
    message       uuid not null,
    recipient     text collate "C" not null,   -- name, without tag
    address       text collate "C" not null,   -- as written
    status        text collate "C" not null check (status in ('delivered', 'failed', 'expired', 'cancelled')),
    via           text collate "C",
    code          text collate "C",
    error         text,
    attempts      integer not null default 0,
    settled_at    timestamptz not null,
    primary key (message, recipient)
) partition by range (message);

-- Attempts that did not end well; the last good one is the settled row itself.
create table attempts (
    message      uuid not null,
    recipient    text collate "C" not null,
    attempt      integer not null,
    at           timestamptz not null,
    via          text collate "C",
    code         text collate "C",
    error        text,
    milliseconds integer,
    primary key (message, recipient, attempt, at)
) partition by range (message);

-- What else happened to a message, for whoever asks or subscribed.
create table events (
    message   uuid not null,
    at        timestamptz not null,
    event     text collate "C" not null,
    recipient text collate "C",
    actor     text,
    details   jsonb
) partition by range (message);
create index on events (message, at);

create table agents (
    id             bigint generated always as identity primary key,
    local          text collate "C" not null,
    domain         text collate "C" not null,
    name           text collate "C" not null generated always as (local || '@' || domain) stored,
    state          text not null default 'active' check (state in ('active', 'retired', 'removed')),
    delivery_mode  text not null default 'pull' check (delivery_mode in ('pull', 'push')),
    push_url       text,
    push_secrets   bytea,                      -- encrypted; never leaves the house
    details        jsonb not null default '{}', -- description, capabilities, schemas, hidden: what discovery may show
    created_at     timestamptz not null,
    retired_at     timestamptz,
    last_active_at timestamptz,
    mail           text check (mail in ('return', 'drop')), -- what becomes of the inbox of a removed agent
    check (delivery_mode = 'pull' or push_url is not null),
    check ((state = 'removed') = (mail is not null))
);
-- A name is free again once its agent is removed; the old row stays, for the history of its messages.
create unique index agents_name on agents (name) where state <> 'removed';
create index agents_removed on agents (id) where state = 'removed';

create table keys (
    id         text collate "C" primary key,
    digest     bytea not null,                 -- SHA-256 of the whole key
    agent      bigint references agents on delete cascade,
    scopes     text[] not null,
    name       text,
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz
);
create index on keys (agent);
create unique index keys_name on keys (name) where agent is null and revoked_at is null;

-- Counts changes of agents and keys: what processes remember is good while this stands still.
create table directory_version (one boolean primary key default true check (one), version bigint not null);
insert into directory_version (version) values (0);

-- An inbox. A consumer's place is the mark on the entry. The message stands in messages.
create table entries (
    message         uuid not null,
    agent           bigint not null,
    address         text collate "C",          -- as written, when that is not the agent's name
    expires_at      timestamptz,
    delivered_at    timestamptz,               -- when that was later than the message was accepted
    read_at         timestamptz,
    lease_until     timestamptz,
    lease_token     uuid,
    lapses          smallint not null default 0,
    acknowledged_at timestamptz,
    dead_at         timestamptz,
    primary key (message, agent)
);
create index entries_open on entries (agent, message) where acknowledged_at is null and dead_at is null;
create index entries_acknowledged on entries (acknowledged_at) where acknowledged_at is not null;
create index entries_worn on entries (agent, message) where lapses > 0 and acknowledged_at is null and dead_at is null;

-- The queue: live deliveries only. A row that is done is deleted. A leased row is one whose due lies ahead.
create table deliveries (
    message        uuid not null,
    recipient      text collate "C" not null,
    address        text collate "C" not null,
    destination    text collate "C" not null,  -- the recipient's domain, or the name of an agent here
    state          text collate "C" not null default 'queued' check (state in ('queued', 'held')),
    due            timestamptz not null,
    token          bigint,                     -- who holds the lease
    attempts       integer not null default 0,
    accepted_at    timestamptz not null,
    expires_at     timestamptz not null,
    expiry         text collate "C" not null check (expiry in ('ttl', 'horizon')),
    delay_reported boolean not null default false,
    first_attempt  timestamptz,
    last_attempt   timestamptz,
    last_code      text collate "C",
    last_error     text,
    primary key (message, recipient)
) with (fillfactor = 80);
create index deliveries_due on deliveries (destination, due) where state = 'queued';
create index deliveries_expiry on deliveries (expires_at);

create table dead_letters (
    id             bigint generated always as identity primary key,
    message        uuid not null,
    recipient      text collate "C" not null,
    address        text collate "C" not null,
    agent          bigint,                     -- set: an inbox entry that its own agent could not digest
    failure_code   text collate "C" not null,
    failure_reason text not null,
    attempts       integer not null,
    first_attempt  timestamptz,
    last_attempt   timestamptz,
    at             timestamptz not null,
    replayed_at    timestamptz
);
create index on dead_letters (message);
create index dead_letters_open on dead_letters (at) where replayed_at is null;

-- Keys and ids seen: plain, for a partitioned table can't be unique over time. Outlives the messages.
create table idempotency (
    hash    bytea primary key,
    message uuid not null,
    content bytea not null,
    at      timestamptz not null
);
create index on idempotency using brin (at);

-- One row a batch: accepted = finished + live. Also the proof that a batch was committed.
create table tallies (
    id       uuid primary key,
    at       timestamptz not null,
    accepted bigint not null,
    finished bigint not null
);

create table destinations (
    destination  text collate "C" primary key,
    failures     integer not null default 0,
    open_until   timestamptz,                  -- the breaker: nothing is sent before
    unreachable  boolean not null default false, -- nothing could be sent there: that it answers proves it well
    last_error   text,
    last_failure timestamptz,
    last_success timestamptz,
    paused_at    timestamptz,
    paused_by    text,
    pause_reason text,
    paused_until timestamptz
);

-- What domains said of themselves in DNS.
create table discovered (
    domain       text collate "C" primary key,
    record       text not null,                -- the last good one
    spoke_at     timestamptz not null,
    silent_since timestamptz
);

create table audit (
    process uuid not null,
    number  bigint not null,
    at      timestamptz not null,
    actor   text not null,
    act     text not null,
    subject text not null,
    details jsonb,
    link    bytea not null,                    -- SHA-256 over the row and the link before
    primary key (process, number)
);
create index on audit (at);
