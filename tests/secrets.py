"""The one text that all secrets of the tests contain, so that it can be searched for in every log."""

from __future__ import annotations

SECRET = "Pl4ntedS3cret"  # passes unchanged through URLs, headers, TOML and JSON
