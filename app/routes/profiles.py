"""`/v1/profiles`: what each profile is, needs and computes, and what has been shown of it."""

from __future__ import annotations

from fastapi import APIRouter

from app.dependencies import ServicesDep
from app.http.scopes import ScopedRoute
from app.problems import PROBLEM_RESPONSES
from strata.core import Proof
from strata.profiles import ProfileList, views
from strata.store import proof_of

router = APIRouter(route_class=ScopedRoute, prefix="/profiles", responses=PROBLEM_RESPONSES)


@router.get("")
def list_profiles(given: ServicesDep) -> ProfileList:
    """All profiles that requests can name: their stages, models, licences and sizes, layers, warnings and proofs.

    A profile with faults is listed with these; requests that name it are refused.
    """

    def proof(fingerprint: str) -> Proof | None:
        return proof_of(given.store, fingerprint)

    # profiles are read for each request, so that a changed file takes effect without a restart
    return ProfileList(profiles=views(given.settings.profiles_dir, given.settings.profile, proof))
