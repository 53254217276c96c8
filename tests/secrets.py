"""The text that the secrets of the tests contain, so that it can be searched for in every log (`tests/log_search.py`).

Two kinds do not contain it. What is only parsed, and never reaches a process, a request or a log, may be any text. The
addresses of shards with a signature (`tests/app/access/test_signed_addresses.py`) are kept in the store as the caller
gave them, where the search would find them; those tests search logs and answers themselves.
"""

from __future__ import annotations

SECRET = "Pl4ntedS3cret"  # passes unchanged through URLs, headers, TOML and JSON
