"""The long forms of the drills in tests/faults: the same code, larger numbers. `make soak` runs them."""
