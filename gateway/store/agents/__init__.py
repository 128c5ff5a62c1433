"""Agents, their keys, and what becomes of both."""
