"""Profiles for people: what each one is, needs, downloads and computes, and new ones made from others.

The files themselves are read and checked in `strata.core.profiles`.
"""

from __future__ import annotations

from strata.profiles.editing import NewProfile, new_file, new_profile
from strata.profiles.views import (
    MemoryView,
    ProfileList,
    ProfileView,
    StageView,
    WeightsView,
    download_bytes,
    licence_of,
    view_of,
    views,
)

__all__ = [
    "MemoryView",
    "NewProfile",
    "ProfileList",
    "ProfileView",
    "StageView",
    "WeightsView",
    "download_bytes",
    "licence_of",
    "new_file",
    "new_profile",
    "view_of",
    "views",
]
