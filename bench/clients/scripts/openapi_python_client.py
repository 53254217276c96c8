"""The client of openapi-python-client. Arguments: the service's address, an image, a shard; prints what it got."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import httpx
from strata_client import Client
from strata_client.api.batches import submit_shards
from strata_client.api.captions import caption_image
from strata_client.api.jobs import list_failures, show_job
from strata_client.models import BatchInput, BatchRequest, CaptionForm, FailureRow
from strata_client.types import File

FINAL = ("completed", "failed", "cancelled")


def main() -> None:
    """Describe the image, submit the shard, follow it, and read its failures."""
    url, image, shard = sys.argv[1:]
    client = Client(base_url=url, timeout=httpx.Timeout(90))
    file = File(payload=io.BytesIO(Path(image).read_bytes()), file_name="a.jpg")
    record = caption_image.sync(client=client, body=CaptionForm(file=file), prefer="wait=60")
    job = submit_shards.sync(client=client, body=BatchRequest(input_=BatchInput(shards=[shard])))
    while job.status not in FINAL:
        time.sleep(0.1)
        job = show_job.sync(job.id, client=client)
    lines = list_failures.sync_detailed(job.id, client=client).content.splitlines()
    rows = [FailureRow.from_dict(json.loads(line)) for line in lines]
    got = {
        "description": record.description.text,
        "status": str(job.status),
        "counts": [job.request_counts.succeeded, job.request_counts.failed],
        "failures": [[row.key, row.failure.error_type] for row in rows],
        "problem": show_job.sync("none", client=client).type_,
    }
    print(json.dumps(got))


if __name__ == "__main__":
    main()
