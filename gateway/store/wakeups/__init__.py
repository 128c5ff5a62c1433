"""Who waits for what is committed, and how they are woken."""
