"""The vision models three ways: `python -m bench.models`."""
