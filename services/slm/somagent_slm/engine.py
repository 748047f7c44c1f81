"""llama.cpp in process: one loaded model, a fixed number of conversations at once, cancellable streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xllamacpp

from somagent_slm.errors import ApiError
from somagent_slm.gguf_file import trained_context
from somagent_slm.model_file import find_model
from somagent_slm.model_spec import ModelSpec

Chunk = dict[str, Any]
# llama.cpp's own log levels: 1 errors; 2 and 3 print lines at every request.
_LOG_ERRORS = 1
_WARM_UP = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": True}
_PROBE = {**_WARM_UP, "max_tokens": 1}


class Engine:
    """Generates with one GGUF model. Thread-safe; methods that are `async` belong to one event loop."""

    def __init__(self, model: Path, *, slots: int, threads: int, context: int) -> None:
        """Loads the model (milliseconds for the bundled one). Raises RuntimeError when llama.cpp refuses it."""
        self._server = _load(model, slots, threads, context)
        self.slots = slots
        # Two more than the slots: the health check and the metrics must not wait behind callers for a thread.
        self._threads = ThreadPoolExecutor(slots + 2, thread_name_prefix="llama")
        self.last_token_at = 0.0

    async def generate(self, body: dict[str, Any]) -> AsyncIterator[list[Chunk]]:
        """Yields llama.cpp's chunks, all that have come since the last time; the last has `usage` and `timings`.

        Closing the iterator stops the generation at its next token. Raises ApiError 400 when llama.cpp refuses the request.
        """
        inbox = _Inbox(asyncio.get_running_loop())
        cancelled = threading.Event()

        def on_chunk(chunk: Chunk) -> bool:
            self.last_token_at = time.monotonic()
            inbox.put(chunk)
            return cancelled.is_set()  # True tells llama.cpp to stop

        def run() -> None:
            try:
                refusal = self._server.handle_chat_completions(body, on_chunk)
                if isinstance(refusal, dict) and "error" in refusal:
                    inbox.put(refusal)
            except Exception as error:  # noqa: BLE001 - every failure must reach the waiting caller
                inbox.put(error)
            finally:
                inbox.put(None)

        self._threads.submit(run)
        try:
            while items := await inbox.take():
                chunks = [item for item in items if item is not None]
                for chunk in chunks:
                    _raise_refusal(chunk)
                if chunks:
                    yield chunks
                if items[-1] is None:
                    return
        finally:
            cancelled.set()

    async def warm_up(self) -> None:
        """One generation for each slot at once: the first of a caller finds everything allocated."""
        await asyncio.gather(*(self._exhaust(_WARM_UP) for _ in range(self.slots)))

    async def answers(self, freshness: float) -> bool:
        """Whether a token came out of the model in the last `freshness` seconds, generating one if need be."""
        if time.monotonic() - self.last_token_at > freshness:
            await self._exhaust(_PROBE)
        return time.monotonic() - self.last_token_at <= freshness

    async def work(self) -> dict[str, float]:
        """llama.cpp's own count of steps so far (`decodes`) and of the slots that generate now (`busy`)."""
        text = await asyncio.get_running_loop().run_in_executor(self._threads, self._server.handle_metrics)
        lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
        figures = {name: float(value) for name, value in lines}
        return {"decodes": figures["llamacpp:n_decode_total"], "busy": figures["llamacpp:requests_processing"]}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _exhaust(self, body: dict[str, Any]) -> None:
        async with contextlib.aclosing(self.generate(body)) as batches:
            async for _ in batches:
                pass


def load_engine(spec: ModelSpec) -> Engine:
    """Loads the model that the spec names. Raises SettingsError when the path holds no usable model."""
    return Engine(
        find_model(spec.path, spec.quantize), slots=spec.slots, threads=spec.threads, context=spec.context
    )


class _Inbox:
    """What threads hand to one coroutine. Many items cost one wake-up: a wake-up costs more than a token."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Any] = deque()
        self._lock = threading.Lock()
        self._woken = False
        self._arrived = asyncio.Event()

    def put(self, item: Any) -> None:
        with self._lock:
            self._items.append(item)
            wake, self._woken = not self._woken, True
        if wake:
            # The loop may be gone when the process is shutting down.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> list[Any]:
        await self._arrived.wait()
        with self._lock:
            self._arrived.clear()
            self._woken = False
            items = list(self._items)
            self._items.clear()
        return items


def _raise_refusal(chunk: Chunk | Exception) -> None:
    if isinstance(chunk, Exception):
        # The binding raises what llama.cpp's parser throws: the request's fault, not the server's.
        raise ApiError(400, str(chunk)[:300]) if isinstance(chunk, ValueError) else chunk
    if "error" in chunk:
        raise _refusal(chunk["error"])


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


def _refusal(error: dict[str, Any]) -> ApiError:
    status = int(error.get("code", 500))
    if error.get("type") == "exceed_context_size_error":
        message = f"the conversation has {error['n_prompt_tokens']} tokens, the model takes {error['n_ctx']}; shorten it"
        return ApiError(400, message, code="context_length_exceeded", parameter="messages")
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ApiError(status, str(error.get("message", "llama.cpp refused the request")), kind=kind)
