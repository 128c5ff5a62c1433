"""What happened, told to operators: log lines and metrics. One function for each thing that can happen."""
