"""The versions of profiles that a worker knows: a changed profile file takes effect without a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from strata.core import FINAL_GROUP, Profile, ProfileError, TextSettings

MOST_WITH_TEXTS = 64  # profiles with the texts of a job that are kept in memory


class ProfileVersions:
    """The versions of each profile that were read, shared by a worker's groups. read: reads a profile's file now.

    A version that was read is kept, so that chunks which were queued before the file changed are still computed.
    texts: what texts the job with a `llm` fingerprint wants, which the store knows; None if it does not. Only they come
    from the store: what a worker runs is what its own profile names.
    """

    def __init__(
        self, read: Callable[[str], Profile], texts: Callable[[str], TextSettings | None] = lambda _: None
    ) -> None:
        self._read, self._texts = read, texts
        self._versions: dict[str, list[Profile]] = {}  # by name, the newest last
        self._with_texts: dict[str, Profile] = {}  # by `llm` fingerprint, the newest last
        self._guard = threading.Lock()

    def newest(self, name: str) -> Profile:
        """The version that was read last. Raises ProfileError."""
        with self._guard:
            return self._known(name)[-1]

    def of(self, name: str, group: str, fingerprint: str) -> Profile:
        """The version with a group's fingerprint; the file is read again if no known version has it.

        Raises ProfileError if the file has another version too: machines may have different profiles. Raises OSError
        if the store is away.
        """
        with self._guard:
            known = self._known(name)
            for profile in reversed(known):
                if profile.fingerprint(group) == fingerprint:
                    return profile
            if group == FINAL_GROUP and fingerprint in self._with_texts:
                return self._with_texts[fingerprint]
            current = self._read(name)
            if current.fingerprint(group) != fingerprint:
                if group == FINAL_GROUP and (found := self._of_job([current, *reversed(known)], fingerprint)):
                    return found
                versions = f"{current.fingerprint(group)} on this worker and {fingerprint} in the job"
                raise ProfileError(f"the versions of profile {name!r} differ: {versions}")
            known.append(current)
            return current

    def _of_job(self, versions: Sequence[Profile], fingerprint: str) -> Profile | None:
        """The version that has the fingerprint with the texts of a job; None if none has."""
        texts = self._texts(fingerprint)
        changed = [one.model_copy(update={"texts": texts}) for one in versions] if texts else []
        found = next((one for one in changed if one.fingerprint(FINAL_GROUP) == fingerprint), None)
        if found is not None:
            self._with_texts[fingerprint] = found
            if len(self._with_texts) > MOST_WITH_TEXTS:
                del self._with_texts[next(iter(self._with_texts))]
        return found

    def _known(self, name: str) -> list[Profile]:
        if name not in self._versions:
            self._versions[name] = [self._read(name)]
        return self._versions[name]
