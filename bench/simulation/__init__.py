"""A queueing simulation of the service, with costs that are measured in the same run."""
