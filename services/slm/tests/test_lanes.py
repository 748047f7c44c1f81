"""Who is answered when more ask than can be: lanes, deadlines, and a clear word to those who are not."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import Files, connected, metrics, serving
from tests.test_chat import QUESTION, long_story

BATCH = {"x-soma-lane": "batch"}
LANES = ("batch", "interactive")


@pytest.fixture(scope="module")
def busy(files: Files) -> Iterator[httpx.Client]:
    """A server with four slots, room for many batch requests and for eight interactive ones."""
    with serving(files, SLM_SLOTS="4", SLM_QUEUE="8", SLM_BATCH_QUEUE="100") as client:
        yield client


def story(tokens: int) -> dict[str, Any]:
    return {**long_story(), "stream": False, "max_tokens": tokens}


class Flood:
    """Callers that keep a lane full until the block ends."""

    def __init__(self, client: httpx.Client, files: Files, lane: str, callers: int, tokens: int) -> None:
        self._stop = threading.Event()
        self.statuses: list[int] = []
        arguments = (str(client.base_url), files, lane, tokens)
        self._threads = [threading.Thread(target=self._call, args=arguments) for _ in range(callers)]

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, base: str, files: Files, lane: str, tokens: int) -> None:
        with connected(base, files) as client:
            while not self._stop.is_set():
                response = client.post("/v1/chat/completions", json=story(tokens), headers={"x-soma-lane": lane})
                self.statuses.append(response.status_code)


def queue_waits(client: httpx.Client, count: int) -> list[float]:
    """Milliseconds that each of `count` interactive requests waited for its slot."""
    waits = []
    for _ in range(count):
        response = client.post("/v1/chat/completions", json={**QUESTION, "max_tokens": 4})
        assert response.status_code == 200, response.text
        waits.append(response.json()["soma"]["queueMs"])
    return waits


def test_a_flood_of_batch_work_does_not_delay_interactive_requests(busy: httpx.Client, files: Files) -> None:
    with Flood(busy, files, "batch", callers=24, tokens=120) as flood:
        assert metrics(busy)['slm_waiting{lane="batch",model="soma-tiny"}'] > 8
        waits = queue_waits(busy, 30)
    assert set(flood.statuses) == {200}
    # A slot is kept free of batch work, so the wait is the dispatcher's own: the bound is generous for a busy machine.
    assert statistics.quantiles(waits, n=20)[-1] < 25


def test_the_same_flood_in_the_interactive_lane_would_have(busy: httpx.Client, files: Files) -> None:
    """The positive control: without its lane the flood makes others wait for whole answers."""
    with Flood(busy, files, "interactive", callers=9, tokens=120):
        waits = queue_waits(busy, 5)
    assert statistics.median(waits) > 25


def waiting(client: httpx.Client) -> tuple[int, int]:
    """Batch and interactive requests that wait for a slot at this moment."""
    seen = metrics(client)
    batch, interactive = (seen.get(f'slm_waiting{{lane="{lane}",model="soma-tiny"}}', 0) for lane in LANES)
    return int(batch), int(interactive)


def until(client: httpx.Client, expected: tuple[int, int]) -> bool:
    """Whether these were seen waiting together before the slots were free again."""
    deadline = time.monotonic() + 5
    while (seen := waiting(client)) != expected and time.monotonic() < deadline:
        time.sleep(0.005)
    return seen == expected


def test_interactive_goes_before_batch_that_came_earlier(busy: httpx.Client, files: Files) -> None:
    """All slots busy, batch waits first, then an interactive request: it gets its slot before them."""

    def slot_at(lane: str, tokens: int) -> float:
        """The moment at which a request of this lane got its slot, seconds."""
        with connected(str(busy.base_url), files) as client:
            client.get("/v1/models")  # Connected before the clock starts.
            sent = time.monotonic()
            response = client.post("/v1/chat/completions", json=story(tokens), headers={"x-soma-lane": lane})
            return sent + response.json()["soma"]["queueMs"] / 1000

    # On a busy machine a slot may be free before all three wait: such a round tells nothing, and the next is tried.
    for _ in range(10):
        with ThreadPoolExecutor(8) as callers:
            # They end one after the other: which of the waiting gets the first slot shows clearly.
            for tokens in (300, 430, 560, 690):
                callers.submit(slot_at, "interactive", tokens)
            time.sleep(0.2)
            batch = [callers.submit(slot_at, "batch", 60) for _ in range(2)]
            together = until(busy, (2, 0))
            interactive = callers.submit(slot_at, "interactive", 60)
            together = together and until(busy, (2, 1))
            got, others = interactive.result(), min(future.result() for future in batch)
        if together:
            assert got < others
            return
    pytest.fail("the three never waited together")


def test_a_full_queue_answers_429_at_once_and_says_when_to_come_back(busy: httpx.Client, files: Files) -> None:
    with Flood(busy, files, "interactive", callers=12, tokens=300):
        started = time.monotonic()
        response = busy.post("/v1/chat/completions", json=QUESTION)
        while response.status_code == 200 and time.monotonic() - started < 10:
            response = busy.post("/v1/chat/completions", json=QUESTION)
        assert response.elapsed.total_seconds() < 1
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "queue_full")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert f"come back in {response.headers['retry-after']} s" in error["message"]


@pytest.mark.parametrize("streaming", [False, True])
def test_who_does_not_want_to_wait_longer_gets_429_at_the_deadline(
    busy: httpx.Client, files: Files, streaming: bool
) -> None:
    # Batch may have three of the four slots: with eight callers it always waits.
    with Flood(busy, files, "batch", callers=8, tokens=400):
        started = time.monotonic()
        headers = {**BATCH, "x-soma-deadline-ms": "50"}
        response = busy.post("/v1/chat/completions", json={**QUESTION, "stream": streaming}, headers=headers)
        waited = time.monotonic() - started
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_deadline")
    assert "within 50 ms" in response.json()["error"]["message"]
    assert int(response.headers["retry-after"]) >= 1
    assert 0.05 <= waited < 1


def test_who_leaves_the_queue_takes_no_slot(busy: httpx.Client, files: Files) -> None:
    name = 'slm_waiting{lane="batch",model="soma-tiny"}'
    with Flood(busy, files, "batch", callers=4, tokens=600):
        impatient = connected(str(busy.base_url), files)
        with pytest.raises(httpx.ReadTimeout):
            impatient.post("/v1/chat/completions", json=QUESTION, headers=BATCH, timeout=0.1)
        impatient.close()
    deadline = time.monotonic() + 5
    while metrics(busy)[name] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert metrics(busy)[name] == 0
    assert metrics(busy)['slm_requests_total{lane="batch",model="soma-tiny",status="499"}'] >= 1


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-soma-lane", "express"),
        ("x-soma-deadline-ms", "soon"),
        ("x-soma-deadline-ms", "0"),
        ("x-soma-deadline-ms", "9" * 30),
    ],
)
def test_a_wrong_header_is_named(busy: httpx.Client, header: str, value: str) -> None:
    response = busy.post("/v1/chat/completions", json=QUESTION, headers={header: value})
    assert (response.status_code, response.json()["error"]["param"]) == (400, header)
    assert response.json()["error"]["message"].startswith(f"{header}: '{value[:40]}'")
