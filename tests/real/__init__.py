"""The stories against Debian's own parts, as root: real curl, proxies and Postgres 15, a full disk, a jumping clock.

Run by `make test-real`; the tools each test needs are listed in `run`.
"""
