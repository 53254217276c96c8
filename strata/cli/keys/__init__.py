"""`strata keys`: the API keys of a service."""
