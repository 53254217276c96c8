"""What several parts of the bench use: requests with images, and the processor time of a process."""

from __future__ import annotations

import asyncio
import time

import psutil  # type: ignore[import-untyped]

from bench.api_load.clients import Caller, connect
from bench.single_images import picture

HOST = "127.0.0.1"
OTHER_CALLER = "127.0.0.2"  # the address of the second caller
UPLOADERS = 32
CPU_SECONDS = 8.0  # for which the processor time of the API is measured


def upload(prefer: float | None = None) -> bytes:
    """A request for an image that no other request has."""
    data = picture()
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + data + b"\r\n--x--\r\n"
    wait = f"Prefer: wait={prefer:g}\r\n" if prefer is not None else ""
    head = f"POST /v1/captions HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: multipart/form-data; boundary=x\r\n{wait}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def queue_images(port: int, count: int, source: str | None = None) -> None:
    """Send so many images without waiting for them. Raises RuntimeError if one is refused."""
    left = iter(range(count))

    async def send_all(caller: Caller) -> None:
        for _ in left:
            status = await caller.send(upload())
            if status != 202:
                raise RuntimeError(f"an image was answered with status {status}")
        caller.close()

    await asyncio.gather(*(send_all(caller) for caller in await connect(HOST, port, UPLOADERS, source)))


def processor_share(pid: int, seconds: float = CPU_SECONDS) -> float:
    """Seconds of processor time that a process takes in a second."""
    before, start = processor_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    return (processor_seconds(pid) - before) / (time.perf_counter() - start)


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def resident_mib(pid: int) -> float:
    """A process's memory in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20
