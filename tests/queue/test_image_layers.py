"""The layers of single images so far: replaced, bounded, and gone after a while."""

from __future__ import annotations

from strata.queue.job_events import LAYER_BYTES, LAYER_SECONDS
from strata.queue.queue import Queue
from tests.raw_redis import raw_redis


def test_layers_are_replaced_and_counted(queue: Queue) -> None:
    layers = queue.image_layers
    assert layers.versions(["a", "b"]) == ["", ""] and layers.of("a") == {}
    layers.put({"a": {"caption": "1", "text": "[]"}, "b": {"caption": "2"}})
    first = layers.versions(["a", "b"])
    layers.put({"a": {"caption": "3"}})
    assert layers.of("a") == {"caption": "3", "text": "[]"} and layers.of("b") == {"caption": "2"}
    now = layers.versions(["a", "b"])
    assert now[0] != first[0] and now[1] == first[1]


def test_large_layers_are_left_out_and_all_expire(queue: Queue) -> None:
    layers = queue.image_layers
    layers.put(
        {"a": {"objects": "x" * (LAYER_BYTES + 1), "caption": "1"}, "b": {"objects": "x" * (LAYER_BYTES + 1)}, "c": {}}
    )
    assert layers.of("a") == {"caption": "1"}
    redis = raw_redis(queue)
    keys = list(redis.scan_iter("strata:layers:*"))
    assert len(keys) == 1 and 0 < redis.ttl(keys[0]) <= LAYER_SECONDS
