"""The library that the service, the workers and training share.

Its packages form layers: core; queue, store and client; jobs, snapshots and shards; data; cli. Each imports only layers
before it, and none imports FastAPI or torch. Read `strata/core/records.py` first, then docs/architecture.md.
"""

__version__ = "0.1.0"
