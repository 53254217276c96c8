"""The versions of profiles that a worker knows: a changed profile file takes effect without a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable

from strata.core import Profile, ProfileError


class ProfileVersions:
    """The versions of each profile that were read, shared by a worker's groups. read: reads a profile's file now.

    A version that was read is kept, so that chunks which were queued before the file changed are still computed.
    """

    def __init__(self, read: Callable[[str], Profile]) -> None:
        self._read = read
        self._versions: dict[str, list[Profile]] = {}  # by name, the newest last
        self._guard = threading.Lock()

    def newest(self, name: str) -> Profile:
        """The version that was read last. Raises ProfileError."""
        with self._guard:
            return self._known(name)[-1]

    def of(self, name: str, group: str, fingerprint: str) -> Profile:
        """The version with a group's fingerprint; the file is read again if no known version has it.

        Raises ProfileError if the file has another version too: machines may have different profiles.
        """
        with self._guard:
            known = self._known(name)
            for profile in reversed(known):
                if profile.fingerprint(group) == fingerprint:
                    return profile
            current = self._read(name)
            if current.fingerprint(group) != fingerprint:
                versions = f"{current.fingerprint(group)} on this worker and {fingerprint} in the job"
                raise ProfileError(f"the versions of profile {name!r} differ: {versions}")
            known.append(current)
            return current

    def _known(self, name: str) -> list[Profile]:
        if name not in self._versions:
            self._versions[name] = [self._read(name)]
        return self._versions[name]
