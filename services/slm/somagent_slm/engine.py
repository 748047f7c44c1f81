"""llama.cpp in process: one loaded model, a fixed number of conversations at once, cancellable streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xllamacpp

from somagent_slm.errors import ApiError
from somagent_slm.gguf_file import trained_context
from somagent_slm.model_file import find_model
from somagent_slm.settings import Settings

Chunk = dict[str, Any]
_END = object()
# llama.cpp's own log levels: 1 errors; 2 and 3 print lines at every request.
_LOG_ERRORS = 1


class Engine:
    """Generates with one GGUF model. Thread-safe; methods that are `async` belong to one event loop."""

    def __init__(self, model: Path, *, slots: int, queue: int, threads: int, context: int) -> None:
        """Loads the model (milliseconds for the bundled one). Raises RuntimeError when llama.cpp refuses it."""
        self._server = _load(model, slots, threads, context)
        self._slots = asyncio.Semaphore(slots)
        self._limit = slots + queue
        self._present = 0
        # Two more than the slots: the health check and the metrics must not wait behind callers for a thread.
        self._threads = ThreadPoolExecutor(slots + 2, thread_name_prefix="llama")
        self.last_token_at = 0.0

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[Chunk]:
        """Yields `chat.completion.chunk` objects; the last has `usage` and `timings` (milliseconds).

        Closing the iterator stops the generation at its next token. Raises ApiError 429 when too many wait and
        400 when llama.cpp refuses the request.
        """
        if self._present >= self._limit:
            raise ApiError(
                429,
                f"{self._present} requests are in progress or waiting, the limit is {self._limit}; try again later",
                kind="rate_limit_error",
                code="queue_full",
            )
        arrived = time.monotonic()
        self._present += 1
        try:
            async with self._slots:
                started = time.monotonic()
                async with contextlib.aclosing(self._generate(body)) as chunks:
                    first_token = 0.0
                    async for chunk in chunks:
                        if not first_token and _has_text(chunk):
                            first_token = time.monotonic()
                        if "timings" in chunk:
                            chunk["timings"] = _timings(chunk["timings"], arrived, started, first_token)
                        yield chunk
        finally:
            self._present -= 1

    async def answers(self, freshness: float) -> bool:
        """Whether a token came out of the model in the last `freshness` seconds, generating one if need be."""
        if time.monotonic() - self.last_token_at <= freshness:
            return True
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "stream": True}
        async with contextlib.aclosing(self._generate(body)) as chunks:
            async for _ in chunks:
                pass
        return time.monotonic() - self.last_token_at <= freshness

    async def work(self) -> dict[str, float]:
        """llama.cpp's own count of steps so far (`decodes`) and of the slots that generate now (`busy`)."""
        text = await asyncio.get_running_loop().run_in_executor(self._threads, self._server.handle_metrics)
        lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
        figures = {name: float(value) for name, value in lines}
        return {"decodes": figures["llamacpp:n_decode_total"], "busy": figures["llamacpp:requests_processing"]}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _generate(self, body: dict[str, Any]) -> AsyncIterator[Chunk]:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Any] = asyncio.Queue()
        cancelled = threading.Event()

        def deliver(item: Any) -> None:
            # The loop may be gone when the process is shutting down.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(chunks.put_nowait, item)

        def on_chunk(chunk: Chunk) -> bool:
            self.last_token_at = time.monotonic()
            deliver(chunk)
            return cancelled.is_set()  # True tells llama.cpp to stop

        def run() -> None:
            try:
                refusal = self._server.handle_chat_completions(body, on_chunk)
                if isinstance(refusal, dict) and "error" in refusal:
                    deliver(refusal)
            except Exception as error:  # noqa: BLE001 - every failure must reach the waiting caller
                deliver(error)
            finally:
                deliver(_END)

        self._threads.submit(run)
        try:
            while (item := await chunks.get()) is not _END:
                if isinstance(item, Exception):
                    raise item
                if "error" in item:
                    raise _refusal(item["error"])
                yield item
        finally:
            cancelled.set()


def load_engine(settings: Settings) -> Engine:
    """Loads the model that the settings name. Raises SettingsError when the path holds no usable model."""
    return Engine(
        find_model(settings.model_path),
        slots=settings.slots,
        queue=settings.queue,
        threads=settings.threads,
        context=settings.context,
    )


def _load(model: Path, slots: int, threads: int, context: int) -> xllamacpp.Server:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    # llama.cpp divides n_ctx among the slots, also the model's own length that it takes for 0.
    parameters.n_ctx = (context or trained_context(model)) * slots
    parameters.n_parallel = slots
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.fit_params = False
    # The cache of finished prompts would grow to 8 GiB; the slots' own caches stay.
    parameters.cache_ram_mib = 0
    parameters.verbosity = _LOG_ERRORS
    parameters.endpoint_metrics = True
    # xllamacpp always opens llama.cpp's own HTTP server. As a socket in a private folder nobody else reaches it.
    folder = tempfile.mkdtemp(prefix="llama-")
    parameters.hostnames = [os.path.join(folder, "http.sock")]
    return xllamacpp.Server(parameters)


def _has_text(chunk: Chunk) -> bool:
    return any(choice.get("delta", {}).get("content") for choice in chunk.get("choices", []))


def _timings(llama: dict[str, Any], arrived: float, started: float, first_token: float) -> dict[str, float]:
    now = time.monotonic()
    return {
        "queue_ms": round((started - arrived) * 1000, 3),
        "first_token_ms": round(((first_token or now) - arrived) * 1000, 3),
        "total_ms": round((now - arrived) * 1000, 3),
        "prompt_ms": llama["prompt_ms"],
        "predicted_ms": llama["predicted_ms"],
        "predicted_per_second": round(llama["predicted_per_second"], 1),
    }


def _refusal(error: dict[str, Any]) -> ApiError:
    status = int(error.get("code", 500))
    if error.get("type") == "exceed_context_size_error":
        message = f"the conversation has {error['n_prompt_tokens']} tokens, the model takes {error['n_ctx']}; shorten it"
        return ApiError(400, message, code="context_length_exceeded", parameter="messages")
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ApiError(status, str(error.get("message", "llama.cpp refused the request")), kind=kind)
