"""The least that a server of this kind can do: uvicorn answers every request with the same 1,000 bytes.

    python -m bench.api_load.hello 8080

It runs with the service's HTTP library and event loop, and has no application. Measured in the same run as the service,
it tells how much of a response time is due to the machine and to the clients.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.types import Receive, Scope, Send

BODY = b'{"hello":"' + b"." * 988 + b'"}'  # about as long as a job's envelope


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that does nothing else."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    """Serve until the process is ended."""
    uvicorn.run(
        answer,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="asyncio",
        http="h11",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
