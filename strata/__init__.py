"""What both sides and training share: records, the broker, the store, jobs, the client. No FastAPI, no torch."""

__version__ = "0.1.0"
