"""Operators' endpoints of a running gateway: queue, destinations, dead letters and peers."""
