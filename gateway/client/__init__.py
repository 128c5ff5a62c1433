"""The Python client for agents: send, request and wait, read, answer.

`gateway.client.agent` is the async API, `gateway.client.sync` the same for code that does not await. This room talks
to any AMTP gateway over HTTP, and does what agents would otherwise have to get right themselves: idempotency keys for
retries, leases, acknowledgements, duplicate replies. The message format is in `protocol/`, one of the few rooms that it
imports.
"""
