"""Sending a message to an address that a caller has given, by the rules of `strata.egress`.

It needs aiohttp and standardwebhooks, of an extra.
"""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from time import time

import aiohttp
from standardwebhooks import Webhook

from strata.egress import EgressRules, RefusedAddress, WebAddress
from strata.egress.sessions import failure_reason, open_session
from strata.errors import StrataError
from strata.webhooks.sender import Answer, Outgoing

SECONDS = 15.0  # from the first DNS query to the status line; the specification proposes 15 to 30


class NotSent(StrataError):
    """A message could not be sent, or was not answered. The message has the reason and not the address."""


def post(outgoing: Outgoing, rules: EgressRules) -> Answer:
    """Sign and send a message; the receiver's answer. Redirects are not followed. Raises RefusedAddress and NotSent."""
    rules.check(WebAddress.parse(outgoing.url))
    try:
        return asyncio.run(_post(outgoing, rules))
    except RefusedAddress:
        raise
    except TimeoutError:
        raise NotSent(f"no answer within {SECONDS:g} seconds") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NotSent(failure_reason(error)) from error


async def _post(outgoing: Outgoing, rules: EgressRules) -> Answer:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "strata",
        "webhook-id": outgoing.message,
        "webhook-timestamp": str(int(outgoing.at.timestamp())),
        "webhook-signature": Webhook(outgoing.secret).sign(outgoing.message, outgoing.at, outgoing.body),
    }
    options = {"cookie_jar": aiohttp.DummyCookieJar(), "headers": headers}
    async with (
        asyncio.timeout(SECONDS),
        await open_session(rules, timeout=aiohttp.ClientTimeout(), **options) as session,
        # the body of the answer is not read
        session.post(outgoing.url, data=outgoing.body.encode(), allow_redirects=False) as response,
    ):
        return Answer(response.status, _retry_after(response.headers.get("Retry-After", "")))


def _retry_after(value: str) -> float | None:
    """The seconds of the header `Retry-After`, a number or a date; None if it has neither form."""
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
