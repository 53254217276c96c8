"""What computes parts: the runner, the indexer, the groups."""
