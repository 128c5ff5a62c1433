-- oldest: 0.1.0
-- What another gateway said beside its refusal: which recipient, which check. Bounded by whoever reads its answer.
alter table settled add column details jsonb;
alter table dead_letters add column failure_details jsonb;
