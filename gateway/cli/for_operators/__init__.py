"""Commands for people who run a domain."""
