"""The endpoints: one module per family, which turns a request into a call of the rooms below and its outcome into an answer.

HTTP itself belongs to http/, the form of messages to protocol/, the rules for accepting them to admit/, and all that
happens to them afterwards to flow/.

Serves sections 4 and 6 of the protocol: HTTP, its codes and its envelope.
"""
