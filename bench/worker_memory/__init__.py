"""The memory of a worker on images that cost much: `python -m bench.worker_memory`."""
