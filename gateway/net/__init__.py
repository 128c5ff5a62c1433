"""The one way out: HTTP to other hosts at judged addresses, TLS, and what bounds whoever is slow."""
