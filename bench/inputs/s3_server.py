"""A temporary S3 server over real HTTP: moto's, in another process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.error import URLError

from strata.processes import leaving_on

READY_SECONDS = 60.0


@dataclass(frozen=True)
class S3:
    """A running server."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which botocore finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "strata",
            "AWS_SECRET_ACCESS_KEY": "strata",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def settings(self, bucket: str) -> dict[str, str]:
        """Make a bucket; return the environment of a service whose store is that bucket."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{bucket}", method="PUT")).close()
        return {**self.environment, "STRATA_STORE": f"s3://{bucket}/store"}


@contextmanager
def s3_server() -> Iterator[S3]:
    """Start the server, wait until it responds, and end it afterwards. Raises TimeoutError."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # a separate process, so that its CPU time is not ours
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with leaving_on(signal.SIGTERM):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server = S3(f"http://127.0.0.1:{port}")
        try:
            # poll until it responds
            until = time.monotonic() + READY_SECONDS
            while True:
                try:
                    urllib.request.urlopen(f"{server.url}/moto-api/").close()
                    break
                except URLError:
                    if time.monotonic() > until:
                        raise TimeoutError("moto's server does not answer") from None
                    time.sleep(0.2)
            yield server
        finally:
            process.kill()
            process.wait()
