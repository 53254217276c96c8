"""Training on what Strata made: the reference single-stage job, and what it shows of the data."""
