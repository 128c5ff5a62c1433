"""Couriers: each hands messages over in one way. What a courier saw is an Outcome; what follows from it is decided
in outcome.py and written by the store. No SQL, no retries, no routing in here.
"""
