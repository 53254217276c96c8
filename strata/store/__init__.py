"""The store: parts, uploads and job files in a folder or a bucket."""
