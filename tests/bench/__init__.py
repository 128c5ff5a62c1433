"""The bench: the floors of the product beside what this machine does. `make bench`, or `python -m tests.bench --help`."""
