"""Ten minutes of bad manners against `lpu serve tiny`, and whether others are served meanwhile.

Clients send what is no JSON, wrong types and huge bodies, hang up in the middle of a stream, do not
read what they asked for, and come five hundred at a time. One client asks in an orderly way, and
must get the same answer each time. At the end nobody may have a slot, and memory must be as before.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

PATHS = ("chat/completions", "completions", "embeddings", "models", "nothing")
GOOD = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "temperature": 0}
JUNK = (None, True, -1, 1e308, "", "x" * 5000, [], [[]], {}, {"a": {}}, ["\ud800"], [1, "a"], 2**70)
KEYS = ("model", "prompt", "messages", "max_tokens", "temperature", "top_p", "n", "stop", "stream",
        "seed", "logprobs", "echo", "input", "stream_options", "top_logprobs", "tools",
        "response_format", "logit_bias", "min_tokens", "colour")  # fmt: skip
GROWTH = 1.25  # of resident memory, once the server is warm


def body(rng: random.Random) -> bytes:
    """Something to send: JSON of a kind, or not even that."""
    kind = rng.random()
    if kind < 0.2:
        return rng.randbytes(rng.randrange(2000))
    if kind < 0.3:
        return b"[" * rng.randrange(100_000)
    if kind < 0.33:
        return b" " * (5 << 20)
    given = dict(GOOD) if rng.random() < 0.7 else {}
    for _ in range(rng.randrange(4)):
        given[rng.choice(KEYS)] = rng.choice(JUNK)
    return json.dumps(given).encode()


async def malformed(client: httpx.AsyncClient, rng: random.Random, seen: Counter[str]) -> None:
    """Send anything; whatever comes is an answer, and no 500."""
    try:
        found = await client.post(f"/v1/{rng.choice(PATHS)}", content=body(rng))
    except httpx.TransportError:
        seen["broken off"] += 1  # of a body that was too large, before it was all sent
        return
    seen[str(found.status_code)] += 1
    assert found.status_code not in (500, 503), found.text


async def hang_up(client: httpx.AsyncClient, rng: random.Random, seen: Counter[str]) -> None:
    """Leave in the middle of an answer."""
    long = GOOD | {"max_tokens": 250, "stream": rng.random() < 0.8, "temperature": 1}
    try:
        async with asyncio.timeout(rng.random()):
            async with client.stream("POST", "/v1/completions", json=long) as found:
                async for _ in found.aiter_bytes():
                    if rng.random() < 0.2:
                        break
    except (TimeoutError, httpx.TransportError):
        pass
    seen["hung up"] += 1


async def read_nothing(address: tuple[str, int], rng: random.Random, seen: Counter[str]) -> None:
    """Ask for a stream, and do not read it for some seconds."""
    data = json.dumps(GOOD | {"max_tokens": 300, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    _, writer = await asyncio.open_connection(*address, limit=1024)
    writer.write(head.encode() + data)
    await asyncio.sleep(rng.uniform(1, 6))
    writer.close()
    seen["slow readers"] += 1


async def orderly(client: httpx.AsyncClient, until: float, waits: list[float]) -> None:
    """Ask in an orderly way; the answer is always the same."""
    texts = set()
    while time.monotonic() < until:
        start = time.monotonic()
        found = await client.post("/v1/completions", json=GOOD)
        if found.status_code == 429:
            await asyncio.sleep(min(5.0, float(found.headers["retry-after"])))
            continue
        texts.add(found.json()["choices"][0]["text"])
        waits.append(time.monotonic() - start)
        await asyncio.sleep(0.2)
    assert len(texts) == 1, texts


async def abuse(url: str, seconds: float, clients: int, seed: int) -> tuple[Counter[str], list]:
    """Do all of it at a time, for so many seconds."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    seen, waits, until = Counter[str](), list[float](), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None)

    async def one(number: int, client: httpx.AsyncClient) -> None:
        rng = random.Random(seed * 1000 + number)
        while time.monotonic() < until:
            kind = rng.random()
            if kind < 0.6:
                await malformed(client, rng, seen)
            elif kind < 0.9:
                await hang_up(client, rng, seen)
            else:
                await read_nothing((host, int(port)), rng, seen)

    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        asked = (one(number, client) for number in range(clients))
        await asyncio.gather(orderly(client, until, waits), *asked)
    return seen, waits


def resident_mib(process: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def slots_taken(url: str) -> float:
    """Requests that run or wait."""
    text = httpx.get(f"{url}/metrics", timeout=60).text
    found = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE)
    assert len(found) == 2
    return sum(map(float, found))


def main() -> None:
    """Serve, abuse, count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    command = [sys.executable, "-m", "cluster", "serve", "tiny", "--port", "0", "--queue", "256"]
    command += ["--embeddings", "tiny-encoder"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = re.search(r"http://[^/]+", server.stdout.readline())[0]
        warm = min(60.0, options.seconds / 4)
        asyncio.run(abuse(url, warm, options.clients, options.seed))
        before = resident_mib(server.pid)
        seen, waits = asyncio.run(abuse(url, options.seconds, options.clients, options.seed + 1))
        end = time.monotonic() + 60
        while slots_taken(url) and time.monotonic() < end:
            time.sleep(0.1)
        taken, after = slots_taken(url), resident_mib(server.pid)
        server.terminate()
        code = server.wait(60)
    waits.sort()
    for what, count in sorted(seen.items()):
        print(f"{what:>14}  {count:,}")
    print(f"orderly answers {len(waits):,}, median {waits[len(waits) // 2]:.2f} s, "
          f"longest {waits[-1]:.2f} s; slots taken at the end {taken:.0f}; "
          f"memory {before:.0f} to {after:.0f} MiB; exit code {code}")  # fmt: skip
    assert taken == 0 and code == 0 and after < GROWTH * before


if __name__ == "__main__":
    main()
