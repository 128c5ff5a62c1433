"""Outgoing HTTP to allowed addresses, TLS, and limits for slow or greedy clients and servers."""
