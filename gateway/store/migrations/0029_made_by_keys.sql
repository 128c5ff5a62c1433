-- oldest: 0.1.0
-- With which key a webhook or a schedule was made: what a thief made goes with the key. Null: it is not known.
alter table subscriptions add column key text collate "C";
alter table schedules add column key text collate "C";
