"""What both sides and training share: records, the broker, the store, jobs, the client. No FastAPI, no torch."""
