"""The AMTP gateway: accept an envelope, decide, queue, hand over, tell whoever asked."""

__version__ = "0.1.0"
