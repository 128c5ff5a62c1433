"""Everything built once and put together: the core, the list of features, and the order of start and stop."""
