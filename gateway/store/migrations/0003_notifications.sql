-- oldest: 0.1.0
-- Who wants to hear of what, and what waits to be told. Nothing here refers to a message: notices have a life of
-- their own, and are forgotten at their own time.

create table subscriptions (
    id             uuid primary key,
    agent          bigint references agents on delete cascade, -- whose; null: the operators'
    url            text not null,
    events         text[] not null,            -- empty: all
    about          text[] not null,            -- addresses and domains; empty: all that the owner may hear of
    description    text,
    status         text not null default 'pending' check (status in ('pending', 'active', 'disabled')),
    challenge      text not null,              -- what its target repeats to become active
    secret         bytea not null,             -- encrypted, as the one before it
    previous       bytea,
    previous_until timestamptz,
    created_at     timestamptz not null,
    proven_at      timestamptz,                -- its first answer to a challenge: what happens since then is kept for it
    failures       integer not null default 0, -- in a row
    failing_since  timestamptz,
    open_until     timestamptz,                -- the breaker: nothing is sent before
    warned_at      timestamptz,
    disabled_at    timestamptz,
    last_error     text,
    last_failure   timestamptz,
    last_success   timestamptz,
    check ((status = 'disabled') = (disabled_at is not null)),
    check (status = 'pending' or proven_at is not null)
);
create index on subscriptions (agent);
create index on subscriptions (failing_since) where failing_since is not null;

-- Counts changes of who hears what, as directory_version does for agents and keys.
create table subscriptions_version (one boolean primary key default true check (one), version bigint not null);
insert into subscriptions_version (version) values (0);

-- What waits to be told. As in deliveries, a leased row is one whose due lies ahead, and a row that is done goes.
create table notices (
    id           uuid primary key,             -- the webhook-id of every try
    subscription uuid not null,
    event        text collate "C" not null,
    body         bytea not null,
    at           timestamptz not null,
    due          timestamptz not null,
    until        timestamptz not null,         -- given up then
    token        bigint,
    attempts     integer not null default 0
) with (fillfactor = 80);
create index notices_due on notices (subscription, due);
create index notices_until on notices (until);
create unique index notices_challenge on notices (subscription) where event = 'challenge';

-- What was told, or given up: kept for a while to be told again.
create table notices_ended (
    id           uuid primary key,
    subscription uuid not null,
    event        text collate "C" not null,
    body         bytea not null,
    at           timestamptz not null,
    ended_at     timestamptz not null,
    told         boolean not null
);
create index on notices_ended (subscription, at);
create index on notices_ended (at);

create table notice_attempts (
    number       bigint generated always as identity primary key,
    notice       uuid not null,
    subscription uuid not null,
    event        text collate "C" not null,
    attempt      integer not null,
    at           timestamptz not null,
    status       integer,                      -- of the HTTP answer; null where none came
    error        text,                         -- null: it was told
    milliseconds integer not null
);
create index on notice_attempts (subscription, number);
create index on notice_attempts (at);
