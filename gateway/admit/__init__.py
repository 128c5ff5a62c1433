"""May this enter: who is calling, what they may do, and what a message must satisfy before it is accepted.

Here belongs what is decided before the acknowledgement, where a refusal is an answer (docs/protocol.md, section 6).
What happens to an accepted message belongs to the rooms further along its way.
"""
