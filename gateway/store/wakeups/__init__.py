"""Wakeups for those who wait for a commit: the bell, replies, and streams fed from memory."""
