"""The HTTP server, which knows nothing of AMTP: connections, limits, requests, routes and their descriptions."""
