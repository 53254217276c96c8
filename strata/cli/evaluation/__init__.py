"""`strata evaluate` and `strata report`: how good the texts of a job or a snapshot are. No service need run."""
