"""Postgres, the only room that speaks SQL. Serves everything that must outlive a crash."""
