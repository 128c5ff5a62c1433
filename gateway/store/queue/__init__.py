"""Deliveries that are not over: claimed, settled, cancelled, and what is known of their destinations."""
