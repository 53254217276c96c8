"""The layers of a single image arrive as events while its stages run; those of shards are told to nobody."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from strata.core.records import Record
from strata.queue.queue import Queue
from tests.app.test_api import events_of
from tests.raw_redis import raw_redis
from tests.service import problem, running_service
from tests.studio.scene_machine import SceneMachine, scene_bytes, write_scenes

PATTERN = "strata:layers:*"


def test_layers_come_before_the_record(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False, max_body_bytes=4_000_000) as service:
        job = service.caption(scene_bytes(5), wait=None, alt_text="scene 5").json()["id"]
        machine = SceneMachine(service.jobs)
        with machine:
            machine.scenes.go_on.clear()
            answers: list[Any] = []
            reading = threading.Thread(target=lambda: answers.append(service.client.get(f"/v1/jobs/{job}/events")))
            reading.start()
            # the caption is in Redis while the stages of the other layers wait
            redis = raw_redis(queue)
            while not (keys := list(redis.scan_iter(PATTERN))) or not redis.hexists(keys[0], "caption"):
                assert reading.is_alive()
            image = json.loads(redis.hget(keys[0], "image") or "")
            # the picture is shown before it is described, and only under its own key
            preview = service.client.get(f"/v1/records/{job}/{image['key']}/preview.jpg?side=64")
            assert preview.status_code == 200 and preview.content[:3] == b"\xff\xd8\xff"
            problem(service.client.get(f"/v1/records/{job}/{'0' * 16}/preview.jpg"), 404, "unknown-record")
            problem(service.client.get(f"/v1/records/{job}/{image['key']}"), 404, "unknown-record")
            machine.scenes.go_on.set()
            reading.join(120)
            record = Record.model_validate_json(service.client.get(f"/v1/records/{job}/{image['key']}").content)
    told: dict[str, Any] = {}
    events = events_of(answers[0])
    for event in events:
        if event.event == "layer":
            data = json.loads(event.data)
            assert data["image"] == {"key": record.key, "width": record.width, "height": record.height}
            told |= data["layers"]
    assert events[-1].event == "status"
    # what was told agrees with the record; floats are shorter there
    assert told["caption"]["text"] == record.caption.text if record.caption else False
    assert [one["phrase"] for one in told["objects"]] == [one.phrase for one in record.objects or []]
    assert [one["mask"]["counts"] for one in told["objects"]] == [one.mask.counts for one in record.objects or []]


def test_nothing_is_told_of_shards(queue: Queue, tmp_path: Path) -> None:
    with running_service(queue, tmp_path, workers=False) as service, SceneMachine(service.jobs):
        shard = write_scenes(tmp_path / "shards" / "a.tar", [1, 2])
        job = service.submit(shard, priority="hi").json()["id"]
        events = events_of(service.client.get(f"/v1/jobs/{job}/events"))
    assert events[-1].event == "status" and not [event for event in events if event.event == "layer"]
    assert not list(raw_redis(queue).scan_iter(PATTERN))
