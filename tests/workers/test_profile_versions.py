"""A changed profile takes effect without a restart, and chunks that were queued before are still computed."""

from __future__ import annotations

import pytest

from strata.core import Profile, ProfileError
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
