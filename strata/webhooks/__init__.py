"""Webhooks: a job's end is told to an address that its caller has given, as https://www.standardwebhooks.com has it.

`deliveries.py` has what is told to whom and how often it was tried, `outbox.py` keeps it in the store, and `sender.py`
sends it: the process that schedules calls it. Only `posts.py` needs packages of an extra: what builds a sender
hands it to it.
"""

from __future__ import annotations

from strata.webhooks.deliveries import PAUSES, Delivery, Message
from strata.webhooks.outbox import Outbox
from strata.webhooks.sender import Answer, Outgoing, Post, Sender

__all__ = ["PAUSES", "Answer", "Delivery", "Message", "Outbox", "Outgoing", "Post", "Sender"]
