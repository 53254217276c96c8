"""`make hostile`: hostile input against a running service, from a seed. Read `run.py` first."""
