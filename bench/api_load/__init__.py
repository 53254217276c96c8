"""Load on the API: `python -m bench.api_load`."""
