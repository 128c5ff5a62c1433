"""Commands for people who write agents."""
