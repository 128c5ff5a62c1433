-- oldest: 0.1.0
-- Whose reply a message is: looked for by those who wait for one.
create index on messages (in_reply_to, id) where in_reply_to is not null;

-- One attempt, before the answer: the immediate path.
alter table deliveries drop constraint deliveries_expiry_check,
    add constraint deliveries_expiry_check check (expiry in ('ttl', 'horizon', 'once'));
