"""`python3 -m somagent_slm.head`: a Ray head node that serves the model until SIGTERM."""

from __future__ import annotations

import sys
import threading
import time

from somagent_slm.process import log, on_stop
from somagent_slm.ray_node import prepare_ray, start_head
from somagent_slm.settings import Settings, SettingsError, read_settings

POLL_SECONDS = 2.0
# A replica that is replaced is unhealthy for a moment; an application that stays so is lost.
UNHEALTHY_LIMIT_SECONDS = 60.0


def main() -> int:
    stop = threading.Event()
    on_stop(stop)
    try:
        settings = read_settings()
        prepare_ray()
        return _serve(settings, stop)
    except SettingsError as error:
        log("error", str(error))
        return 2


def _serve(settings: Settings, stop: threading.Event) -> int:
    # Imported here: Ray reads its environment when it is imported.
    import ray
    from ray import serve

    from somagent_slm.app import app
    from somagent_slm.model_file import find_model

    for spec in settings.models:
        find_model(spec.path, spec.quantize)
    _check_certificate(settings)
    started = time.monotonic()
    ray.init(address=start_head().gcs_address, log_to_driver=False, logging_level="warning")
    # Ray installs a handler of its own, which would end this process without draining.
    on_stop(stop)
    try:
        # The router answers HTTPS itself: a proxy before it would be one more process and one more hop.
        serve.start(proxy_location="Disabled")
        serve.run(app({}), name="slm", route_prefix=None)
        log("info", "router ready", seconds=round(time.monotonic() - started, 1), port=settings.port)
        return _watch(settings, stop)
    finally:
        serve.shutdown()
        ray.shutdown()


def _check_certificate(settings: Settings) -> None:
    for name in ("tls.crt", "tls.key"):
        if not (settings.tls_directory / name).exists():
            raise SettingsError(f"SLM_TLS_DIR={settings.tls_directory} has no {name}; mount the certificate there")


def _watch(settings: Settings, stop: threading.Event) -> int:
    """Blocks until SIGTERM or a renewed certificate (0) or until the application is lost (1)."""
    from ray import serve

    certificate = settings.tls_directory / "tls.crt"
    served = certificate.read_bytes()
    healthy_at = time.monotonic()
    while not stop.wait(POLL_SECONDS):
        status = serve.status().applications["slm"].status
        if status == "RUNNING":
            healthy_at = time.monotonic()
        elif status == "DEPLOY_FAILED" or time.monotonic() - healthy_at > UNHEALTHY_LIMIT_SECONDS:
            log("error", f"the application is {status}; the replica's log above says why")
            return 1
        if certificate.read_bytes() != served:
            # The router reads the certificate once, so a renewed one takes a new process.
            log("info", "the certificate was renewed; restarting")
            return 0
    log("info", "draining")
    return 0


if __name__ == "__main__":
    sys.exit(main())
