"""The accepting transaction: group commit, uniqueness, repetitions."""
