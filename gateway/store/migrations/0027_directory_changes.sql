-- oldest: 0.1.0
-- Whom each of the last changes of agents and keys concerned: what processes remember of anybody else stays good. A
-- change that a release made which doesn't know this table leaves no row, and then everything is forgotten.
create table directory_changes (
    version bigint not null,
    name    text collate "C" not null, -- of an agent, or the id of a key; * where that is not known
    primary key (version, name)
);
