"""Capabilities beside a message's journey: each a folder of its own that plugs into a few seams and knows no other."""
