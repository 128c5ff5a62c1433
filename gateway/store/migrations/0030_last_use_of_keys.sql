-- oldest: 0.1.0
-- When a key was last used, to the hour: one that nobody uses can go.
alter table keys add column last_used_at timestamptz;
