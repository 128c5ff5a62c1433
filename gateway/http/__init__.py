"""Our HTTP server, and nothing of AMTP: connections, limits, requests, routes and the words for their description."""
