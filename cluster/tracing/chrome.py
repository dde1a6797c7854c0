"""A timeline as Chrome's trace events in JSON, which Perfetto opens; 1 us of it is 1 cycle."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

from cluster.tracing.events import Timeline, Track

Event = dict[str, Any]


def chrome_json(timeline: Timeline) -> bytes:
    """The trace as one JSON object."""
    about = {
        "launch": timeline.name,
        "level": timeline.level,
        "end_cycle": timeline.end_cycle,
        "clock_hz": timeline.clock_hz,
        "unit": "1 us is 1 cycle",
    }
    body = {"traceEvents": list(_events(timeline)), "displayTimeUnit": "ns", "otherData": about}
    return json.dumps(body, separators=(",", ":")).encode()


def chrome_json_gz(timeline: Timeline) -> bytes:
    """The same, compressed; equal timelines give equal bytes."""
    return gzip.compress(chrome_json(timeline), mtime=0)


def _events(timeline: Timeline) -> Iterator[Event]:
    tracks = numbered(timeline)
    for chip, title in timeline.titles.items():
        named = {"ph": "M", "pid": chip}
        yield named | {"name": "process_name", "args": {"name": title}}
        yield named | {"name": "process_sort_index", "args": {"sort_index": chip}}
    for track, number in tracks.items():
        named = {"ph": "M", "pid": track.chip, "tid": number}
        yield named | {"name": "thread_name", "args": {"name": track.title}}
        yield named | {"name": "thread_sort_index", "args": {"sort_index": number}}
    for one in timeline.slices:
        yield {
            "ph": "X", "name": one.name, "pid": one.track.chip, "tid": tracks[one.track],
            "ts": one.start, "dur": one.end - one.start, "args": one.args,
        }  # fmt: skip
    for number, flow in enumerate(timeline.flows):
        same = {"name": "packet", "cat": "c2c", "id": number}
        for phase, at, cycle in (
            ({"ph": "s"}, flow.source, flow.source_cycle),
            ({"ph": "f", "bp": "e"}, flow.target, flow.target_cycle),
        ):
            track = timeline.slices[at].track
            yield same | phase | {"pid": track.chip, "tid": tracks[track], "ts": cycle}
    for counter in timeline.counters:
        named = {"ph": "C", "name": counter.name, "pid": counter.chip}
        for cycle, value in counter.samples:
            yield named | {"ts": cycle, "args": {"value": value}}


def numbered(timeline: Timeline) -> dict[Track, int]:
    """Tracks in the order of their rows, each with a number of its own in its chip."""
    tracks = sorted({one.track for one in timeline.slices}, key=lambda t: (t.chip, t.rank))
    return {track: track.rank for track in tracks}
