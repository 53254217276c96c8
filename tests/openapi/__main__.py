"""`python -m tests.openapi > docs/openapi.json`: at a release, the document that later ones are compared with."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from app.main import create_app
from strata.core import Settings
from strata.queue import Queue
from strata.store import Store

RELEASED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def current() -> dict[str, Any]:
    """The document of this code. Neither Redis nor the store is asked for it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        return create_app(settings, Queue("redis://127.0.0.1:1"), Store(settings.store_uri)).openapi()


def main() -> None:
    """Print it."""
    json.dump(current(), sys.stdout, indent=1, sort_keys=True, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
