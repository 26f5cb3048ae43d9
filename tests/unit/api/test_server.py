"""The HTTP server of the API."""

import asyncio
import gc

from uvicorn import Config

from api.server import Server


async def _no_application(_scope: object, _receive: object, _send: object) -> None:
    """Answers nothing."""


def test_what_stays_as_long_as_the_process_is_never_looked_through_for_garbage() -> None:
    server = Server(Config(_no_application, port=0, lifespan="off", log_level="error"))

    async def start_and_stop() -> int:
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup()
        frozen = gc.get_freeze_count()
        await server.shutdown()
        return frozen

    try:
        assert asyncio.run(start_and_stop()) > 10_000
    finally:
        gc.unfreeze()
