"""`python -m somagent_embeddings`: serves until SIGTERM; ends with 2 at a wrong setting."""

from __future__ import annotations

import sys
from functools import partial

import uvloop
from somagent_slm.auth import admission
from somagent_slm.environment import SettingsError
from somagent_slm.https import serve, write_log
from somagent_slm.request_log import logged

from somagent_embeddings.api import Api
from somagent_embeddings.batcher import BATCH_TOKENS, Batcher
from somagent_embeddings.encoder import Encoder, Tokens
from somagent_embeddings.settings import Settings, read_settings

log = partial(write_log, "embeddings")


def main() -> int:
    try:
        settings = read_settings()
        return uvloop.run(_serve(settings))
    except SettingsError as error:
        log("error", str(error))
        return 2


async def _serve(settings: Settings) -> int:
    admitted = admission(settings)
    encoder = Encoder(settings.model_path, settings.threads, settings.precision)
    _warm_up(encoder)
    batcher = Batcher(encoder, queue=settings.queue, deadline=settings.deadline)
    about = {"model": settings.model_name, "dimensions": encoder.dimensions, "precision": encoder.precision}
    log("info", "serving", port=settings.listener.port, **about)
    try:
        await serve(logged(Api(settings, encoder, batcher, admitted).application, log), settings.listener)
    finally:
        batcher.close()
    log("info", "stopped")
    return 0


def _warm_up(encoder: Encoder) -> None:
    """Runs the smallest and the largest batch: pages are read and memory is asked for before anybody waits."""
    encoder.embed(encoder.tokenize(["warm"]))
    longest = Tokens((0,) * encoder.longest, truncated=False)
    encoder.embed([longest] * max(1, BATCH_TOKENS // encoder.longest))


if __name__ == "__main__":
    sys.exit(main())
