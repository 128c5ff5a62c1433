-- oldest: 0.1.0
-- How many entries inboxes gained, less those that were let go of: what a count of the entries must find.
alter table tallies add column entries bigint not null default 0;
insert into tallies (id, at, accepted, finished, entries)
select '00000000-0000-0000-0000-000000000000', amtp_now(), 0, 0, count(*) from entries having count(*) > 0;
