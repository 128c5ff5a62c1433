-- oldest: 0.1.0
-- Messages that repeat, receipts that are owed, and what an acknowledgement sent.

-- A message that is sent again and again. One that ended stays for a while, so that its key still answers.
create table schedules (
    id         uuid primary key,               -- of the message that set it up, by which its key is known
    public_id  text collate "C",               -- null when minted here: then it is id
    agent      bigint not null references agents,
    repeat     text collate "C" not null,      -- a cron expression, in UTC
    body       bytea not null,                 -- as it was handed in
    created_at timestamptz not null,
    next_at    timestamptz,                    -- the next tick; null once it ended
    ends_at    timestamptz,                    -- no tick after this
    last_at    timestamptz,                    -- the last tick that was sent
    ticks      bigint not null default 0,
    ended_at   timestamptz,
    end_reason text,
    check ((next_at is null) = (ended_at is not null))
);
alter table schedules alter column body set storage external;
create index schedules_due on schedules (next_at) where next_at is not null;
create index schedules_of_agent on schedules (agent, id);

-- Receipts that are owed: a row comes in the transaction that delivered or read, and goes in the one that writes
-- the receipt.
create table receipts (
    message uuid not null,
    address text collate "C" not null,         -- the recipient as written
    kind    text collate "C" not null check (kind in ('delivered', 'read')),
    primary key (message, address, kind)
);

alter table entries add column receipt boolean; -- true: the sender hears when it is read; null: nobody does any more
alter table entries add column sent text[];     -- the ids of what its acknowledgement sent
alter table deliveries add column receipt text collate "C" check (receipt in ('delivered', 'read'));
