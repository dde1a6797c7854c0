"""A server of the tiny model on a port of its own, in a thread of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.runs.display import Bars, Stopwatch
from cluster.serving.openai.server import bind, url_of
from cluster.serving.openai.service import Options, Service

DEFAULTS = {
    "model": "tiny", "host": "127.0.0.1", "port": 0, "api_key": None, "queue": 1024,
    "body_bytes": 1 << 20, "drain_s": 5, "embeddings": "tiny-encoder", "concurrency": 4,
    "context": None, "timing_of": None, "text": None, "speed": None, "chips": None, "tp": None,
    "pp": None, "ep": None, "sums_between_nodes": "fp32", "topology": None,
    "profile": None, "links": (), "faults": None,
    "spec": "groqchip1", "weights": None, "machine": "local", "chips_per_actor": None,
    "address": None, "prefix_cache": False, "kv_pages": None,
}  # fmt: skip


@contextmanager
def serving(**changed: object) -> Iterator[tuple[str, Service]]:
    """The URL of a server, and what it serves."""
    service = Service(Options(**DEFAULTS | changed).check())
    service.load(Bars(), Stopwatch(0.0))
    listener, ready = bind("127.0.0.1", 0), threading.Event()
    server = service.server(ready.set)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    assert ready.wait(300)
    try:
        yield url_of(listener), service
    finally:
        server.should_exit = True
        thread.join(300)
        service.close()
        assert not thread.is_alive()
        assert not (service.engine and service.engine.active), "a request was never ended"
