-- oldest: 0.1.0
-- When each domain's gateway last answered us, and when the domain, proven, last handed something in here.
create table contacts (
    domain      text collate "C" primary key,
    answered_at timestamptz,
    heard_at    timestamptz
);
