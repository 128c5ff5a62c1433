"""Routing: the way to a recipient (sections 3.2 and 11 of the draft).

Here belong questions to the DNS, what is remembered of the answers, and the choice of a destination.
What a record means is in `protocol/discovery`; handing over is the couriers' work in `deliver/`.
"""
