"""The queue on Redis Streams. Every Redis command of Strata is issued in this package."""
