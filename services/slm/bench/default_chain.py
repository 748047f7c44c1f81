"""`python -m bench.default_chain`: the same engine as an ordinary Serve application behind Serve's own HTTPS proxy.

Prints a line when it answers and ends at SIGTERM. It parses requests and makes answers with the same code as the service;
it admits everybody and has no queue, which is to its advantage.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator

from somagent_slm.process import on_stop
from somagent_slm.ray_node import prepare_ray, start_head
from somagent_slm.settings import Settings, read_settings


def main() -> int:
    stop = threading.Event()
    settings = read_settings()
    prepare_ray()
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    certificate, key = (str(settings.tls_directory / name) for name in ("tls.crt", "tls.key"))
    ray.init(address=start_head().gcs_address, log_to_driver=False, logging_level="warning")
    on_stop(stop)
    options = HTTPOptions(host="127.0.0.1", port=settings.port, ssl_certfile=certificate, ssl_keyfile=key)
    serve.start(proxy_location="HeadOnly", http_options=options)
    serve.run(_application(settings), name="default", route_prefix="/")
    print("ready", flush=True)
    stop.wait()
    serve.shutdown()
    ray.shutdown()
    return 0


def _application(settings: Settings):  # noqa: ANN202
    from ray import serve
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    from somagent_slm.backend import Kind, job_of, perform
    from somagent_slm.engine import load_engine
    from somagent_slm.prompt import binding, llama_body
    from somagent_slm.requests import parse_chat_request

    spec = settings.models[0]

    @serve.deployment(
        max_ongoing_requests=64,
        ray_actor_options={"num_cpus": 0.5},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    @serve.ingress()
    class Default:
        def __init__(self) -> None:
            self._engine = load_engine(spec)

        def __serve_build_asgi_app__(self) -> Starlette:
            return Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

        async def _chat(self, request: Request) -> StreamingResponse:
            chat = parse_chat_request(await request.body(), [spec.name])
            mode, schema = binding(chat)
            job = job_of(spec.name, mode, schema, stream=True, body=llama_body(chat))
            return StreamingResponse(self._events(job), media_type="text/event-stream")

        async def _events(self, job: bytes) -> AsyncIterator[bytes]:
            async for pieces in perform(self._engine, job):
                yield b"".join(b"data: " + piece.data + b"\n\n" for piece in pieces)
                if pieces[-1].kind is Kind.DONE:
                    yield b"data: [DONE]\n\n"

    return Default.bind()


if __name__ == "__main__":
    os.environ.setdefault("RAY_PORT", "6390")
    sys.exit(main())
