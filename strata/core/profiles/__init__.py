"""Profiles: a TOML file names each stage's back end, model, revision and parameters; fingerprints hash them.

`profile.py` has the profile, `settings.py` what it sets, `files.py` reads its file, `checks.py` finds the faults of it.
"""

from __future__ import annotations

from strata.core.profiles.checks import COMMIT, Fault
from strata.core.profiles.files import PROMPTS, InvalidProfile, load_profile, profile_names, read_profile
from strata.core.profiles.profile import (
    FINAL_GROUP,
    GROUPS,
    OUTPUT_VERSIONS,
    RULE_NAME,
    STAGES_OF,
    Profile,
    ProfileError,
)
from strata.core.profiles.settings import EvidenceSettings, NameWeights, StageSettings

__all__ = [
    "COMMIT",
    "FINAL_GROUP",
    "GROUPS",
    "OUTPUT_VERSIONS",
    "PROMPTS",
    "RULE_NAME",
    "STAGES_OF",
    "EvidenceSettings",
    "Fault",
    "InvalidProfile",
    "NameWeights",
    "Profile",
    "ProfileError",
    "StageSettings",
    "load_profile",
    "profile_names",
    "read_profile",
]
