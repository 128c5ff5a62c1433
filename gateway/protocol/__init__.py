"""AMTP itself: addresses, messages, headers, statuses, errors, discovery, retry times.

Here belongs what can be decided from values alone, so that the client may use it as well as the gateway.
Nothing here waits, reads a clock or rolls dice: `now` and fresh identifiers are arguments. What touches the
world belongs to the room that touches it.
"""
