"""Faults on purpose: processes are killed, lines are cut, leases run out, and a ledger tells what became of the mail."""
