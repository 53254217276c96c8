"""The REST service, and the process behind `strata serve`. It imports `strata`, never `models`, `workers` or torch.

Read `main.py` first, which builds the application, then `routes/`.
"""
