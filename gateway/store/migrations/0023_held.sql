-- oldest: 0.1.0
-- Whether anything is held for a destination: asked before what is known of it is forgotten.
create index deliveries_held on deliveries (destination) where state = 'held';
