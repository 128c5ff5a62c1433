"""Entries of inboxes: handed out, leased, acknowledged, put aside."""
