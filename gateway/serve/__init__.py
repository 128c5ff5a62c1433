"""A gateway as one process or several: workers, signals, ports, the pid file."""
