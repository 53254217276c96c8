"""What lies between a socket and a route: connections, their limits, browsers, the API key, bodies."""
