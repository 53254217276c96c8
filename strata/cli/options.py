"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_URL = "http://127.0.0.1:8080"

Url = Annotated[str, typer.Option("--url", envvar="STRATA_URL", help="The service's address.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="STRATA_API_KEY", help="The service's key.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Follow = Annotated[bool, typer.Option("--follow", "--wait", "-f", help="Show progress until the job's end.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="A profile; none: the service's own choice.")]
StoreUri = Annotated[str | None, typer.Option("--store", envvar="STRATA_STORE", help="URI of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", exists=True, dir_okay=False, readable=True)]
