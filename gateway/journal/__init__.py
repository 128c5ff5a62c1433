"""Log lines and metrics for operators: one function for each kind of event."""
