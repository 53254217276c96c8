"""What is seen of the service: requests, and `/metrics`."""
