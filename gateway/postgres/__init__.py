"""A private Postgres as a child process, for those who have none."""
