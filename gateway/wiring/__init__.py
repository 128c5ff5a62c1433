"""Construction of a gateway: its core, the list of features, and the order of start and stop."""
