"""The main path: `accept` is everything before the answer, `carry` everything after it."""
