"""The doors: where requests enter and answers leave.

Belongs here: listening, framing, limits on what a stranger may occupy, finding the route, and one
module per family of endpoints that turns a request into a call of the rooms below and its outcome
into an answer. Does not belong here: what a message must look like (protocol/), whether it may
enter (admit/), and anything that happens to it afterwards (flow.py).

Serves sections 4 and 6 of the protocol: HTTP, its codes and its envelope.
"""
