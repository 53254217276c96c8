"""The studio: its page, and how people sign in."""
