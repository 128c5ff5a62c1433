"""The stories of several gateways once more: signed names, ports 53 and 443, wires that are slow and lose packets.

No list of them is kept: a test of `tests/stories` that asks for `ground` is told here too, on the far one.
"""
