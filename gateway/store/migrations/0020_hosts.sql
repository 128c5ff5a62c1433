-- oldest: 0.1.0
-- The addresses that the DNS last told of a host; none where it said that there are none.
create table hosts (
    host      text collate "C" primary key,
    addresses text[] not null,
    told_at   timestamptz not null
);
