-- oldest: 0.1.0
-- What each owner's uploads hold in all, sent or not: the table itself would have to be read through to tell. A release
-- that doesn't know this table keeps it true, because triggers do.

-- A row, its index entries and a block of a disk cost something even where the file is empty.
create function amtp_upload_cost(size bigint) returns bigint language sql immutable parallel safe as $$
    select greatest(size, 4096)
$$;

create table upload_totals (
    owner text collate "C" primary key,
    bytes bigint not null
);

create function amtp_add_upload() returns trigger language plpgsql as $$
begin
    insert into upload_totals as t (owner, bytes) values (new.owner, amtp_upload_cost(new.size) - case tg_op
        when 'UPDATE' then amtp_upload_cost(old.size) else 0 end)
    on conflict (owner) do update set bytes = t.bytes + excluded.bytes;
    return null;
end $$;

-- In one order, so that two processes that remove uploads don't wait for each other.
create function amtp_remove_uploads() returns trigger language plpgsql as $$
begin
    insert into upload_totals as t (owner, bytes)
    select owner, -sum(amtp_upload_cost(size)) from gone group by owner order by owner
    on conflict (owner) do update set bytes = t.bytes + excluded.bytes;
    return null;
end $$;

create trigger add_upload after insert or update of size on attachments
    for each row execute function amtp_add_upload();
create trigger remove_uploads after delete on attachments
    referencing old table as gone for each statement execute function amtp_remove_uploads();

insert into upload_totals select owner, sum(amtp_upload_cost(size)) from attachments group by owner;
