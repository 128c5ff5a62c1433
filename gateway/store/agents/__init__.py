"""Agents and their keys, and what either leaves behind."""
