"""A timeline in Perfetto's own format, by the classes that its package ships; 1 us is 1 cycle."""

from collections.abc import Iterator
from typing import Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

from cluster.tracing.chrome import numbered
from cluster.tracing.events import Timeline, Track

NS_PER_CYCLE = 1000
SEQUENCE = 1  # all packets are of one writer
CHIP_UUID, TRACK_UUID, COUNTER_UUID = 1 << 32, 2 << 32, 3 << 32


class _Writer:
    """Packets in the order of their times, names kept once."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.builder = TraceProtoBuilder()
        self.tracks = {track: TRACK_UUID + n for n, track in enumerate(numbered(timeline))}
        self._names: dict[str, int] = {}

    def write(self) -> bytes:
        """The whole trace."""
        first = self._packet()
        first.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        first.first_packet_on_sequence = True
        self._describe()
        leaves: dict[int, list[int]] = {}
        arrives: dict[int, list[int]] = {}
        for number, flow in enumerate(self.timeline.flows, 1):
            leaves.setdefault(flow.source, []).append(number)
            arrives.setdefault(flow.target, []).append(number)
        for cycle, begins, at in self._edges():
            one = self.timeline.slices[at]
            packet, event = self._event(cycle, self.tracks[one.track])
            event.type = TrackEvent.TYPE_SLICE_BEGIN if begins else TrackEvent.TYPE_SLICE_END
            if begins:
                event.name_iid = self._name(packet, one.name)
                event.flow_ids.extend(leaves.get(at, ()))
                event.terminating_flow_ids.extend(arrives.get(at, ()))
                for name, value in one.args.items():
                    self._annotate(event, name, value)
        for number, counter in enumerate(self.timeline.counters):
            for cycle, value in counter.samples:
                _, event = self._event(cycle, COUNTER_UUID + number)
                event.type = TrackEvent.TYPE_COUNTER
                event.double_counter_value = value
        data: bytes = self.builder.serialize()
        return data

    def _edges(self) -> Iterator[tuple[int, bool, int]]:
        """(cycle, whether it begins, slice) of all slices: ends first, outer before inner."""
        edges = []
        for at, one in enumerate(self.timeline.slices):
            edges.append((one.start, 1, -one.end, at))
            edges.append((one.end, 0, -one.start, -at))
        for cycle, begins, _, at in sorted(edges):
            yield cycle, bool(begins), abs(at)

    def _describe(self) -> None:
        """Chips as processes, units as tracks below them in their order, counters last."""
        for chip, title in self.timeline.titles.items():
            descriptor = self._descriptor(CHIP_UUID + chip)
            descriptor.process.pid = chip + 1  # 0 is nobody's
            descriptor.process.process_name = title
            descriptor.child_ordering = TrackDescriptor.EXPLICIT
            descriptor.sibling_order_rank = chip
        for rank, (track, uuid) in enumerate(self.tracks.items()):
            self._child(uuid, track, track.title, rank)
        for number, counter in enumerate(self.timeline.counters):
            uuid, rank = COUNTER_UUID + number, len(self.tracks) + number
            descriptor = self._child(uuid, Track(counter.chip, ""), counter.name, rank)
            descriptor.counter.unit_name = counter.unit

    def _child(self, uuid: int, track: Track, name: str, rank: int) -> TrackDescriptor:
        descriptor = self._descriptor(uuid)
        descriptor.parent_uuid = CHIP_UUID + track.chip
        descriptor.name = name
        descriptor.sibling_order_rank = rank
        return descriptor

    def _descriptor(self, uuid: int) -> TrackDescriptor:
        descriptor = self._packet().track_descriptor
        descriptor.uuid = uuid
        return descriptor

    def _event(self, cycle: int, track: int) -> tuple[TracePacket, TrackEvent]:
        packet = self._packet()
        packet.timestamp = cycle * NS_PER_CYCLE
        packet.sequence_flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        packet.track_event.track_uuid = track
        return packet, packet.track_event

    def _packet(self) -> TracePacket:
        packet = self.builder.add_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        return packet

    def _name(self, packet: TracePacket, name: str) -> int:
        if name not in self._names:
            self._names[name] = len(self._names) + 1
            entry = packet.interned_data.event_names.add()
            entry.iid, entry.name = self._names[name], name
        return self._names[name]

    @staticmethod
    def _annotate(event: TrackEvent, name: str, value: Any) -> None:
        note = event.debug_annotations.add()
        note.name = name
        if isinstance(value, int):
            note.int_value = value
        else:
            note.string_value = str(value)


def perfetto_trace(timeline: Timeline) -> bytes:
    """The trace as a serialised `perfetto.protos.Trace`."""
    return _Writer(timeline).write()
