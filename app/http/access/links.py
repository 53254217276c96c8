"""Signed links to images: whoever has one sees this one image until it expires, without a key.

The signature covers the path and all parameters of the link, and is made with the hash of a key too: it is worth
nothing once this key was revoked, has expired or is another one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Depends, Query, Request
from itsdangerous import Signer
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from app.http.access.lookups import find_access, find_facts
from app.http.prefix import SIGNATURE, V1, is_link, path_of
from app.problems import ProblemError
from strata.keys import Access, KeyRefused, KeyRing

LONGEST_SECONDS = 7 * 24 * 3600
KEPT_SECONDS = 600  # for which a browser may keep the image of a link
_EXPIRES, _KEY = "expires", "key_id"
_NO_LINK = "this is no link of this service, or its key may not be used any more: ask for a new one"

Pairs = list[tuple[str, str]]


class Links:
    """Makes links, and says what a request by one may do. Thread-safe."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys

    def make(self, access: Access, job: str, key: str, file: str, query: Mapping[str, str], expires: int) -> str:
        """A link to a file of a record, below the prefix of the service, for the key of an access.

        file: `image`, `preview.jpg` or `overlay.png`; expires: in seconds of Unix. Raises OSError and DamagedFile if
        the secret cannot be read or made.
        """
        names = ("records", job, key, file)
        facts = self.keys.facts(access.key_id)
        pairs = [*query.items(), (_EXPIRES, str(expires)), (_KEY, access.key_id)]
        signature = self._signature("/".join((V1, *names)), pairs, facts.digest if facts is not None else "")
        path = "/".join((V1, *(quote(name, safe="") for name in names)))
        return f"{path}?{urlencode([*pairs, (SIGNATURE, signature)])}"

    def end_of(self, access: Access, seconds: int) -> int:
        """When a link ends that is to be valid for so long, in seconds of Unix: not after its key."""
        facts, end = self.keys.facts(access.key_id), time.time() + seconds
        if facts is not None and facts.expires_at is not None:
            end = min(end, facts.expires_at.timestamp())
        return int(end)

    async def access(self, scope: Scope) -> Access:
        """What the key of a link may do; that the request is for what the link names is checked here.

        Raises ProblemError, and OSError and DamagedFile if the list of keys or the secret cannot be read.
        """
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(pairs)
        # a name that is given twice is in no link
        if len(given) < len(pairs) or not {_EXPIRES, _KEY, SIGNATURE} <= given.keys():
            raise ProblemError("link-invalid", _NO_LINK)
        facts = await find_facts(self.keys, given[_KEY])
        digests = [facts.digest] if facts is not None else []
        signed = [pair for pair in pairs if pair[0] != SIGNATURE]
        wanted = await run_in_threadpool(self._signature, path_of(scope), signed, "".join(digests))
        # as texts, because several texts of base64 stand for the same bytes
        if not hmac.compare_digest(wanted.encode(), given[SIGNATURE].encode()):
            raise ProblemError("link-invalid", _NO_LINK)
        if int(given[_EXPIRES]) <= time.time():
            raise ProblemError("link-expired", "the link has expired: ask for a new one")
        try:
            return await find_access(self.keys, digests=digests)
        except KeyRefused as error:
            raise ProblemError("link-invalid", _NO_LINK) from error

    def _signature(self, path: str, pairs: Pairs, key_digest: str) -> str:
        """The signature of a path and its parameters, in whatever order and form of encoding a client sends them."""
        salt = f"strata link {key_digest}"
        signer = Signer(self.keys.keys.signing_secret(), salt, key_derivation="hmac", digest_method=hashlib.sha256)
        return signer.get_signature(json.dumps([path, sorted(pairs)])).decode()


async def link_headers(
    request: Request,
    expires: Annotated[str | None, Query(max_length=20, description="of a link: when it ends")] = None,
    key_id: Annotated[str | None, Query(max_length=20, description="of a link: the key that has made it")] = None,
    signature: Annotated[str | None, Query(max_length=100, description="of a link")] = None,
) -> dict[str, str]:
    """A dependency of images: the headers of an answer to a link, which pages of other sites may show.

    A browser keeps the image for some minutes, and not longer than the link is valid.
    """
    if not is_link(request.scope):
        return {}
    left = int(expires or 0) - int(time.time())
    return {
        "Cache-Control": f"private, max-age={max(0, min(left, KEPT_SECONDS))}",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


LinkHeaders = Annotated[dict[str, str], Depends(link_headers)]
