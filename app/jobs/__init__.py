"""Jobs as requests need them: the shards that a submission names, envelopes, waiting for a record, deletion."""
