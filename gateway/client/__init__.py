"""What an agent imports: send, ask and wait, read, answer, from Python.

`gateway.client.agent` is the async face, `gateway.client.sync` the same for code that does not await. Here
belongs how an agent talks to any AMTP gateway over HTTP, and what it would otherwise have to get right by
itself: keys for retries, leases, acknowledgements, replies that come twice. What a message is belongs to
`protocol/`, the only other room that is imported here.
"""
