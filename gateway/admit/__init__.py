"""Admission: authentication, rights, and the checks that a message must pass before it is accepted.

Here belongs what is decided before the acknowledgement, where a refusal is an answer (docs/protocol.md, section 6).
What happens to an accepted message belongs to the rooms further along its way.
"""
