"""The names of all environment variables of Strata, and what is wrong with those that are set.

The command line imports this module before it knows what else it needs, so it imports only the standard library.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

# the fields of `strata.core.Settings`; a test compares the two
SETTINGS = (
    "STRATA_ALLOWED_HOSTS",
    "STRATA_API_KEY",
    "STRATA_AUDIT_LOG",
    "STRATA_AUDIT_READS",
    "STRATA_CALLER_SHARE",
    "STRATA_CORS_ORIGINS",
    "STRATA_DATA_DIR",
    "STRATA_HANG_SECONDS",
    "STRATA_HIGH_WATER",
    "STRATA_HOST",
    "STRATA_KEEP_METADATA",
    "STRATA_LEASE_SECONDS",
    "STRATA_LOG_FORMAT",
    "STRATA_LOG_LEVEL",
    "STRATA_MAX_BODY_BYTES",
    "STRATA_MAX_PIXELS",
    "STRATA_METRICS",
    "STRATA_PORT",
    "STRATA_PRIVATE_URLS",
    "STRATA_PROFILE",
    "STRATA_PROFILES_DIR",
    "STRATA_QUEUE_IMAGES",
    "STRATA_QUEUE_JOBS",
    "STRATA_QUEUE_SHARDS",
    "STRATA_REDIS_URL",
    "STRATA_ROOT_PATH",
    "STRATA_SHARD_ROOTS",
    "STRATA_MOVED_ROOTS",
    "STRATA_STORE",
    "STRATA_THREADS",
    "STRATA_UPLOAD_DAYS",
    "STRATA_URL_HOSTS",
    "STRATA_URL_PORTS",
    "STRATA_WEBHOOK_HOSTS",
)
OTHERS = ("STRATA_DEBUG", "STRATA_MODELS", "STRATA_URL", "STRATA_WEBHOOK_SECRET")
VARIABLES = SETTINGS + OTHERS

# Kubernetes sets variables for each Service of a namespace: for a Service named strata STRATA_SERVICE_HOST,
# STRATA_SERVICE_PORT, STRATA_PORT=tcp://10.0.0.1:80 and STRATA_PORT_80_TCP with its parts. A Service strata-api makes
# STRATA_API_SERVICE_HOST and so on.
_SERVICE_NAME = re.compile(
    r"STRATA(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT = re.compile(r"STRATA(_[A-Z0-9_]+)?_PORT")
_LINK = re.compile(r"\s*(tcp|udp|sctp)://")


def set_by_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes has set a variable for a Service whose name begins with `strata`."""
    return bool(_SERVICE_NAME.fullmatch(name) or (_SERVICE_PORT.fullmatch(name) and _LINK.match(value)))


def own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without variables that begin with `STRATA_` and are none of Strata's."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("STRATA_") or (name in VARIABLES and not set_by_kubernetes(name, value))
    }


def warnings(environment: Mapping[str, str], services: bool = True) -> list[str]:
    """A line for each variable that is probably misspelt, and if services, one line for all those of Kubernetes."""
    strange = {name: value for name, value in environment.items() if name.startswith("STRATA_")}
    linked = sorted(name for name, value in strange.items() if set_by_kubernetes(name, value))
    unknown = sorted(set(strange) - set(linked) - set(VARIABLES))
    lines = [f"{name}: unknown variable, ignored{_hint(name, VARIABLES)}" for name in unknown]
    if services and linked:
        more = f" and {len(linked) - 1} more" if len(linked) > 1 else ""
        lines.append(
            f"{linked[0]}{more}: ignored, because Kubernetes sets them for a Service; "
            "`enableServiceLinks: false` in the pod removes them, and --port sets the port"
        )
    return lines


def _hint(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return f"; did you mean {found[0]}?" if found else f"; there are: {', '.join(names)}"
