"""Jobs: creating, scheduling and finishing them, and reading their results."""
