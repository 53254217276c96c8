"""The comparison of texts with the truth, on which the quality figures are based."""

from __future__ import annotations

from samples.scenes import HELD_OUT_SEED, SceneOptions, make_scene
from samples.truth import is_recalled, is_true, things_named


def test_things_are_named_with_their_colours() -> None:
    named = things_named("A red car, two dogs and a Top hat beside a blue balloon; no hotdog, no cars park.")
    assert named == {("car", "red"), ("dog", None), ("top hat", None), ("balloon", "blue")}


def test_truth_and_recall() -> None:
    present = {("car", "red"), ("dog", None)}
    assert is_true(("car", "red"), present)
    assert is_true(("car", None), present)
    assert not is_true(("car", "blue"), present)
    assert is_recalled(("car", "red"), {("car", None)})
    assert not is_recalled(("car", "red"), {("car", "blue")})


def test_a_scenes_own_caption_names_exactly_its_objects() -> None:
    for seed in range(40):
        scene = make_scene(HELD_OUT_SEED + seed, SceneOptions(signs=False))
        assert things_named(scene.caption) == {(thing.name, thing.colour) for thing in scene.objects}
