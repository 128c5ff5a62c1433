-- oldest: 0.1.0
-- What mail of unproven senders weighs, in bytes, while it is stored and not done with: they have one common room.
alter table entries add column unproven integer;
alter table deliveries add column unproven integer;
create index entries_unproven on entries (agent) include (unproven)
    where unproven is not null and acknowledged_at is null;
create index deliveries_unproven on deliveries (recipient) include (unproven) where unproven is not null;
