"""Engines: who gives a runner its chunks, and what becomes of a chunk that has ended.

`queue.py` is the service's: chunks come from Redis. `local.py` and `ray.py` compute the missing parts of a job without
Redis. The runner, the groups and the parts are the same.
"""
