-- oldest: 0.1.0
-- Files that agents uploaded for their messages. An upload stays as long as a message that refers to it, and a day
-- without one. Where it lies: in chunks here, or as a file in the data folder of the gateway that took it.

create table attachments (
    id           uuid primary key,             -- UUIDv7: the moment the upload began
    token        text collate "C" not null unique,
    owner        text collate "C" not null,
    filename     text not null,
    content_type text collate "C" not null,
    place        text collate "C" not null check (place in ('file', 'database')),
    size         bigint not null default 0,
    digest       bytea,                        -- SHA-256; null until the last byte is kept
    used         boolean not null default false -- a message refers to it
);
create index attachments_unused on attachments (owner, id) where not used;

create table attachment_chunks (
    attachment uuid not null references attachments on delete cascade,
    number     integer not null,
    bytes      bytea not null,
    primary key (attachment, number)
);
alter table attachment_chunks alter column bytes set storage external;

-- No reference to messages, which are partitioned and dropped by the day; no cascade either: what is in use stays.
create table attachment_uses (
    message    uuid not null,
    attachment uuid not null references attachments,
    primary key (message, attachment)
);
create index on attachment_uses (attachment);
