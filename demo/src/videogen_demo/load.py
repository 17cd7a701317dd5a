"""Viewers of the service: real requests through the gateway, and what came back."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import aiohttp

REQUEST_SECONDS = 700.0  # longer than the gateway waits for the slowest release of the stories, so that its answer counts
MOST_LEFT = 6  # abandoned requests under way at a time; beyond that a viewer waits until one is answered
PROMPTS = (
    "a red square moves right",
    "a blue circle moves left",
    "a green triangle moves up",
    "a yellow square moves down",
    "a cartoon rabbit in a green meadow",
    "people ride bicycles in a street",
    "a man talks in a car",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered (or failed) request."""

    sent: float  # time.monotonic() seconds
    received: float
    release: str  # from the gateway's response header; "" when there was none
    status: int  # HTTP status; 0 when the connection failed
    video: bytes = b""
    prompt: str = ""

    @property
    def ok(self) -> bool:
        """Whether a video came back."""
        return self.status == 200

    @property
    def seconds(self) -> float:
        """From sending to the last byte."""
        return self.received - self.sent


def body(prompt: str, seed: int) -> dict[str, object]:
    """The KServe v2 inference request for one video."""
    return {
        "inputs": [
            {"name": "PROMPT", "shape": [1], "datatype": "BYTES", "data": [prompt]},
            {"name": "SEED", "shape": [1], "datatype": "INT64", "data": [seed]},
        ],
        "outputs": [{"name": "VIDEO", "parameters": {"binary_data": True}}, {"name": "METADATA", "parameters": {"binary_data": False}}],
    }


@dataclass
class Load:
    """A number of viewers that ask one after the other, in a thread of their own, until stopped.

    With `patience` a viewer leaves a request that takes longer under way, and asks again: else a slow release would soon keep every
    viewer, and nobody would ask the other one.
    """

    url: str  # http://address:port of the gateway
    host: str  # host name of the service's route
    viewers: int = 2
    pause: float = 0.0  # seconds between an answer and the next request of a viewer
    patience: float | None = None  # seconds that a viewer waits for an answer; None: however long it takes
    keep_videos: int = 48
    answers: list[Answer] = field(default_factory=list)
    videos: deque[Answer] = field(default_factory=deque)
    _left: set[asyncio.Task[Answer]] = field(default_factory=set)  # requests that nobody waits for
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Load:
        """Begin; returns itself."""
        self.videos = deque(maxlen=self.keep_videos)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Let every viewer finish its request, then end."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=REQUEST_SECONDS)

    def recent(self, seconds: float = 15.0) -> list[Answer]:
        """Answers of the last seconds."""
        since = time.monotonic() - seconds
        return [answer for answer in self.answers[-2000:] if answer.received >= since]

    def shares(self, seconds: float = 15.0) -> dict[str, float]:
        """Share of the recent answers by release."""
        counted = Counter(answer.release for answer in self.recent(seconds) if answer.ok)
        total = sum(counted.values())
        return {release: count / total for release, count in sorted(counted.items())} if total else {}

    def failures(self) -> list[Answer]:
        """All answers that were not a video."""
        return [answer for answer in self.answers if not answer.ok]

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._viewer(session, number) for number in range(self.viewers)))
            await asyncio.gather(*self._left)

    async def _viewer(self, session: aiohttp.ClientSession, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            seed = number * 100_000 + turn
            asked = asyncio.create_task(self._ask(session, seed))
            turn += 1
            await asyncio.wait({asked}, timeout=self.patience)
            while not asked.done() and len(self._left) >= MOST_LEFT:
                await asyncio.wait({asked}, timeout=self.patience)
            if asked.done():
                await asyncio.sleep(self.pause if asked.result().ok else max(self.pause, 0.2))
            else:
                self._left.add(asked)
                asked.add_done_callback(self._left.discard)

    async def _ask(self, session: aiohttp.ClientSession, seed: int) -> Answer:
        answer = await ask(session, self.url, self.host, PROMPTS[seed % len(PROMPTS)], seed, user=f"viewer-{seed}")
        self.answers.append(Answer(answer.sent, answer.received, answer.release, answer.status))
        if answer.ok:
            self.videos.append(answer)
        return answer


async def ask(session: aiohttp.ClientSession, url: str, host: str, prompt: str, seed: int, user: str) -> Answer:
    """One request. Never raises: a failed connection is an answer with status 0."""
    sent = time.monotonic()
    try:
        async with session.post(
            f"{url}/v2/models/video/infer", json=body(prompt, seed), headers={"Host": host, "x-user-id": user}
        ) as response:
            data = await response.read()
            release = response.headers.get("x-videogen-release", "")
            video = _video(data, response.headers.get("Inference-Header-Content-Length")) if response.status == 200 else b""
            return Answer(sent, time.monotonic(), release, response.status, video, prompt)
    except (aiohttp.ClientError, TimeoutError):
        return Answer(sent, time.monotonic(), "", 0, b"", prompt)


def _video(data: bytes, header_length: str | None) -> bytes:
    """The mp4 of a response: after the JSON header as 4-byte length and bytes, or base64 in JSON."""
    if header_length is None:
        outputs = {output["name"]: output for output in json.loads(data)["outputs"]}
        return base64.b64decode(outputs["VIDEO"]["data"][0])
    return data[int(header_length) + 4 :]
