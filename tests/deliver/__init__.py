"""Tests of the couriers and of what they make of an answer."""
