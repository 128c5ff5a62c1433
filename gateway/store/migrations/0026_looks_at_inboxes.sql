-- oldest: 0.1.0
-- Each open entry stands in one of three indexes, so that a look at an inbox walks through what it hands out alone.
-- Their order differs from the primary key's: a look that asks for it has one index to take, whatever the planner knows.
create index entries_unread on entries (agent, message nulls first)
    where read_at is null and acknowledged_at is null and dead_at is null;
create index entries_read on entries (agent, message nulls first)
    where read_at is not null and lease_until is null and acknowledged_at is null and dead_at is null;
create index entries_leased on entries (agent, lease_until, message)
    where lease_until is not null and acknowledged_at is null and dead_at is null;
drop index entries_open;

-- Those whose leases ran out, by how often: found for one agent, and those that ran out too often for all.
drop index entries_worn;
create index entries_worn on entries (lapses, agent, message nulls first)
    where lapses > 0 and acknowledged_at is null and dead_at is null;
