"""What pyarrow imports at its first use."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from strata.store.arrow import import_ahead
import_ahead()
import pyarrow as pa
table = pa.table({"key": ["a", None], "score": [0.5, float("nan")]})
assert table.to_pydict()["key"] == ["a", None] and table["score"].null_count == 0
print([name for name in ("pandas", "pyarrow.dataset") if name in sys.modules])
import_ahead()
print(table.to_pandas()["key"][0], "pandas" in sys.modules)
import_ahead()
"""


def test_pandas_is_not_imported_until_somebody_needs_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.stdout.splitlines() == ["['pyarrow.dataset']", "a True"], done.stderr
