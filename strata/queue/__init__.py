"""The queue on Redis Streams. Only this package issues Redis commands and knows the names of keys."""
