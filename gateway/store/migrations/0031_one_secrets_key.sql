-- oldest: 0.1.0
-- A known text sealed with the secrets.key that the processes of this database share: another file doesn't open it.
create table secrets_check (
    one    boolean primary key default true check (one), -- the row
    sealed bytea not null
);
