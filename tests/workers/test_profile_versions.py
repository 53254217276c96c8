"""A changed profile takes effect without a restart, and chunks that were queued before are still computed."""

from __future__ import annotations

import pytest

from strata.core import Profile, ProfileError, TextSettings
from tests.fakes import FAKE_PROFILE
from workers.profile_versions import ProfileVersions

OTHER = FAKE_PROFILE.model_copy(update={"evidence": FAKE_PROFILE.evidence.model_copy(update={"text": 0.123})})


class File:
    """A profile's file, and how often it was read."""

    def __init__(self) -> None:
        self.content, self.reads = FAKE_PROFILE, 0

    def read(self, name: str) -> Profile:
        assert name == FAKE_PROFILE.name
        self.reads += 1
        return self.content


@pytest.mark.parametrize("group", ["vision", "llm"])
def test_a_changed_file_is_read_when_a_chunk_needs_it(group: str) -> None:
    file = File()
    versions = ProfileVersions(file.read)
    old, new = FAKE_PROFILE.fingerprint(group), OTHER.fingerprint(group)
    assert old != new
    for _ in range(3):
        assert versions.of("fake", group, old) is FAKE_PROFILE
    assert file.reads == 1 and versions.newest("fake") is FAKE_PROFILE
    file.content = OTHER
    assert versions.of("fake", group, new) is OTHER
    assert versions.newest("fake") is OTHER
    # both versions are known now, so the file is not read again
    assert versions.of("fake", group, old) is FAKE_PROFILE and versions.of("fake", group, new) is OTHER
    assert file.reads == 2


def test_an_unknown_version_is_an_error_that_names_both() -> None:
    versions = ProfileVersions(File().read)
    with pytest.raises(ProfileError) as caught:
        versions.of("fake", "vision", "0123456789abcdef")
    assert "0123456789abcdef" in str(caught.value) and FAKE_PROFILE.fingerprint("vision") in str(caught.value)


def test_the_texts_of_a_job_come_from_the_store_and_nothing_else_does() -> None:
    file, asked = File(), []
    wanted = FAKE_PROFILE.with_texts(TextSettings(variants=["tags", "json"]))
    foreign = OTHER.with_texts(TextSettings(variants=["tags"]))
    kept = {profile.fingerprint("llm"): profile.texts for profile in (wanted, foreign)}

    def texts(fingerprint: str) -> TextSettings | None:
        asked.append(fingerprint)
        return kept.get(fingerprint)

    versions = ProfileVersions(file.read, texts)
    for _ in range(3):
        assert versions.of("fake", "llm", wanted.fingerprint("llm")) == wanted
    assert asked == [wanted.fingerprint("llm")] and versions.newest("fake") is FAKE_PROFILE
    # the images' layers are the same, so that `vision` is not asked for again
    assert wanted.fingerprint("vision") == FAKE_PROFILE.fingerprint("vision")
    # a job with other stages than this worker's file is refused, whatever texts it wants
    with pytest.raises(ProfileError, match="differ"):
        versions.of("fake", "llm", foreign.fingerprint("llm"))
    # a chunk of a job from before the file changed finds its version, with its texts
    file.content = OTHER
    assert versions.of("fake", "llm", foreign.fingerprint("llm")) == foreign
    assert versions.of("fake", "llm", wanted.fingerprint("llm")) == wanted
