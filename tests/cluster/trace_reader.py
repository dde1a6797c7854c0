"""Reads timelines back, by their formats alone: no code of the writer, and none of Perfetto's."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NS_PER_CYCLE = 1000


@dataclass
class Track:
    chip: str
    title: str
    order: int
    slices: list[tuple[int, int, str, dict[str, Any]]] = field(default_factory=list)


@dataclass
class Read:
    """Tracks, flows as pairs of (track, cycle), and counters by (chip, name)."""

    tracks: list[Track]
    flows: list[tuple[tuple[Track, int], tuple[Track, int]]]
    counters: dict[tuple[str, str], list[tuple[int, float]]]


def read(path: Path) -> Read:
    data = path.read_bytes()
    if path.name.endswith(".pftrace"):
        return _perfetto(data)
    return _chrome(json.loads(gzip.decompress(data) if path.name.endswith(".gz") else data))


def _chrome(body: dict[str, Any]) -> Read:
    chips: dict[int, str] = {}
    tracks: dict[tuple[int, int], Track] = {}
    ends: dict[int, list[tuple[Track, int]]] = defaultdict(list)
    counters: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for event in body["traceEvents"]:
        pid, tid, kind = event["pid"], event.get("tid", -1), event["ph"]
        if kind == "M" and event["name"] == "process_name":
            chips[pid] = event["args"]["name"]
        elif kind == "M" and event["name"] == "thread_name":
            tracks[pid, tid] = Track(chips[pid], event["args"]["name"], -1)
        elif kind == "M" and event["name"] == "thread_sort_index":
            tracks[pid, tid].order = event["args"]["sort_index"]
        elif kind == "X":
            ts, dur = event["ts"], event["dur"]
            tracks[pid, tid].slices.append((ts, ts + dur, event["name"], event["args"]))
        elif kind in "sf":
            ends[event["id"]].append((tracks[pid, tid], event["ts"]))
        elif kind == "C":
            key = chips[pid], event["name"]
            counters[key].append((event["ts"], event["args"]["value"]))
    assert all(len(pair) == 2 for pair in ends.values())
    return Read(list(tracks.values()), [(a, b) for a, b in ends.values()], dict(counters))


# --- protobuf, from its wire format and the numbers of perfetto_trace.proto -----------------------
def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
        elif wire == 1:
            at += 8
            yield number, data[at - 8 : at]
        elif wire == 2:
            size = varint()
            at += size
            yield number, data[at - size : at]
        else:
            raise AssertionError(f"wire type {wire}")


def _message(data: bytes) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for number, value in _fields(data):
        found[number].append(value)
    return found


def _perfetto(data: bytes) -> Read:
    import struct

    chips: dict[int, str] = {}
    tracks: dict[int, Track] = {}
    counter_names: dict[int, tuple[str, str]] = {}
    names: dict[int, str] = {}
    open_slices: dict[int, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)
    leaves: dict[int, tuple[Track, int]] = {}
    arrives: dict[int, tuple[Track, int]] = {}
    counters: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for number, value in _fields(data):
        assert number == 1  # Trace.packet
        packet = _message(value)
        for interned in packet[12]:
            for entry in _message(interned)[2]:
                one = _message(entry)
                names[one[1][0]] = one[2][0].decode()
        for descriptor in packet[60]:
            one = _message(descriptor)
            uuid = one[1][0]
            if one[3]:  # process
                chips[uuid] = _message(one[3][0])[6][0].decode()
            elif one[8]:  # counter
                counter_names[uuid] = chips[one[5][0]], one[2][0].decode()
            else:
                rank = one[12][0] if one[12] else 0
                tracks[uuid] = Track(chips[one[5][0]], one[2][0].decode(), rank)
        for body in packet[11]:
            event = _message(body)
            uuid, kind = event[11][0], event[9][0]
            cycle, rest = divmod(packet[8][0], NS_PER_CYCLE)
            assert rest == 0
            if kind == 4:
                (value,) = struct.unpack("<d", event[44][0])
                counters[counter_names[uuid]].append((cycle, value))
            elif kind == 1:
                args = {}
                for note in map(_message, event[4]):
                    key = note[10][0].decode()
                    args[key] = note[4][0] if note[4] else note[6][0].decode()
                open_slices[uuid].append((cycle, names[event[10][0]], args))
                for raw in event[47]:
                    leaves[int.from_bytes(raw, "little")] = tracks[uuid], cycle
                for raw in event[48]:
                    arrives[int.from_bytes(raw, "little")] = tracks[uuid], cycle
            else:
                start, name, args = open_slices[uuid].pop()
                tracks[uuid].slices.append((start, cycle, name, args))
    assert not any(open_slices.values()) and leaves.keys() == arrives.keys()
    flows = [(leaves[one], arrives[one]) for one in leaves]
    return Read(list(tracks.values()), flows, dict(counters))
