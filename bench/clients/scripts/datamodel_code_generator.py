"""The models of datamodel-code-generator, with httpx. Arguments: the service's address, an image, a shard.

It prints what it got. Every body that is sent and received is one of the models.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

import httpx
import strata_models as models

FINAL = ("completed", "failed", "cancelled")


def main() -> None:
    """Describe the image, submit the shard, follow it, and read its failures."""
    url, image, shard = sys.argv[1:]
    with httpx.Client(base_url=url, timeout=90, headers={"Content-Type": "application/json"}) as client:
        body = models.CaptionBody(image_base64=base64.b64encode(Path(image).read_bytes()).decode())
        sent = body.model_dump_json(exclude_none=True)
        answer = client.post("/v1/captions", content=sent, headers={"Prefer": "wait=60"})
        record = models.Record.model_validate_json(answer.content)
        batch = models.BatchRequest(input=models.BatchInput(shards=[shard]))
        answer = client.post("/v1/batches", content=batch.model_dump_json(exclude_none=True))
        job = models.JobView.model_validate_json(answer.content)
        while job.status.value not in FINAL:
            time.sleep(0.1)
            job = models.JobView.model_validate_json(client.get(f"/v1/jobs/{job.id}").content)
        lines = client.get(f"/v1/jobs/{job.id}/failures").text.splitlines()
        rows = [models.FailureRow.model_validate_json(line) for line in lines]
        problem = models.Problem.model_validate_json(client.get("/v1/jobs/none").content)
    got = {
        "description": record.description.text,
        "status": job.status.value,
        "counts": [job.request_counts.succeeded, job.request_counts.failed],
        "failures": [[row.key, row.failure.error_type] for row in rows],
        "problem": problem.type,
    }
    print(json.dumps(got))


if __name__ == "__main__":
    main()
