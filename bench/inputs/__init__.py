"""What the measurements read: tiny shards, parts of made-up rows, a server of buckets."""
