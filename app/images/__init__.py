"""The image of a request: read, fetched and decoded; and a record's layers drawn on its image."""
