"""A black-box suite for any AMTP gateway: it knows a URL, a domain and an admin key, and nothing of the inside."""
