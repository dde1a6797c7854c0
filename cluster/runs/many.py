"""Many prompts through one loaded cluster, several in flight: `lpu run --prompts --concurrency`."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chip.energy import energy_table
from cluster.energy import Joules, activity
from cluster.errors import BadValue, PromptTooLong
from cluster.files import write_whole
from cluster.generation.flight import Flight, Generation, HostLink, steady_tokens_per_s
from cluster.generation.inflight import Crew
from cluster.lowering.host_regions import host_bytes
from cluster.lowering.lower import Lowered
from cluster.machines.ledger import Entry
from cluster.mapping.choice import choose
from cluster.mapping.partition import CONTEXT_BLOCK, Plan
from cluster.model.load import Model, load_model
from cluster.runs.answers import Answers, finish_reason
from cluster.runs.clock_report import clock_report
from cluster.runs.display import Bars, Stopwatch
from cluster.runs.report import Host, counted, host_shape, plan_shape
from cluster.runs.running import Options, Rig, load, lower_choice, new_tokens, say_resumed
from cluster.runs.trace import trace


def generate_many(options: Options, start: float, bars: Bars) -> dict[str, Any]:
    """Plan, load, answer every prompt of the file; returns the report."""
    watch = Stopwatch(start)
    watch.lap("import")
    assert options.prompts is not None
    lines = read_lines(options.prompts)
    model = load_model(options.model, lambda done, total: bars.step("fetch", done, total))
    watch.lap("model")
    choice = choose(model.spec, options.request)
    prompts, counts = _prompts(options, lines, model, choice.plan.context)
    lowered = lower_choice(choice, model, options, bars)
    watch.lap("lower")
    rig = Rig.of(options)
    try:
        load(rig.ledger, lowered, bars, watch)
        say_resumed(options, rig)
        crew = Crew(lowered, rig.ledger)
        flight = make_flight(lowered.plan, lowered, crew)
        answers = Answers(options.output, options.as_json)
        try:
            sequences = _fly(flight, (lines, prompts, counts), options, model, (bars, answers))
        finally:
            answers.close()
        host = rig.host(start, watch)
        rig.commit()
    finally:
        rig.ledger.close()
    if options.trace:
        write_whole(options.trace, trace(lowered, crew.names[-1], crew.parts[crew.names[-1]]))
    report = {
        "model": model.spec.name,
        "sequences": sequences,
        "plan": plan_shape(lowered, choice.topology)
        | {"concurrency": lowered.plan.slots, "faults": options.faults},
        "emulated": emulated(lowered, flight) | _energy(lowered, flight, crew),
        "host": _host(host, flight, rig.ledger.entries),
        "digest": crew.digest.hexdigest(),
        "clocks": clock_report(lowered, rig.clocked),
    }
    return report


def make_flight(plan: Plan, lowered: Lowered, crew: Crew) -> Flight:
    """A pipeline of the plan's stages; of one, if there is a slot only."""

    def moved(kind: str, context: int) -> tuple[int, int]:
        tokens = 1 if kind == "decode" else plan.chunk
        return host_bytes(lowered.stages, tokens, context // CONTEXT_BLOCK)

    several = plan.slots > 1
    link = HostLink(plan.spec, moved, beside=several)
    return Flight(plan.pp if several else 1, plan.slots, plan.chunk, link, crew)


# --- what goes in -----------------------------------------------------------------------------
def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of all lines that are not blank, each as it stands.

    Lines end with a line feed, or with carriage return and line feed, and with nothing else; a
    byte order mark is none of the text. Raises BadValue if there is no prompt.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadValue("--prompts", path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadValue("--prompts", path, "is not UTF-8 text") from None
    if "\0" in text:
        raise BadValue("--prompts", path, "is not text: it holds NUL bytes")
    whole = [line.removesuffix("\r") for line in text.split("\n")]
    lines = [(n, line) for n, line in enumerate(whole, 1) if line.strip()]
    if not lines:
        raise BadValue("--prompts", path, "holds no prompt; write one a line")
    return lines


def _prompts(
    options: Options, lines: Sequence[tuple[int, str]], model: Model, context: int
) -> tuple[list[list[int]], list[int]]:
    """The ids of every prompt, and how many tokens it may get."""
    said = [text if options.raw else text.strip() for _, text in lines]
    prompts = [model.tokenizer.encode_prompt(text, options.raw) for text in said]
    counts = []
    for (number, _), prompt in zip(lines, prompts, strict=True):
        try:
            counts.append(new_tokens(options, len(prompt), context))
        except PromptTooLong as error:
            problem = f"line {number}: {error.message()}"
            raise BadValue("--prompts", options.prompts, problem) from None
    return prompts, counts


# --- on the way -------------------------------------------------------------------------------
def _fly(
    flight: Flight,
    asked: tuple[Sequence[tuple[int, str]], Sequence[Sequence[int]], Sequence[int]],
    options: Options,
    model: Model,
    shown: tuple[Bars, Answers],
) -> list[dict[str, Any]]:
    """Answer all prompts, given as lines, ids and most tokens; show each answer as it ends."""
    (lines, prompts, counts), (bars, answers) = asked, shown
    hashes: dict[int, Any] = {}
    last: list[bytes] = []

    def pick(logits: Any, step: int) -> int:
        last[:] = [logits.tobytes()]
        return options.sampling.pick(logits, step)

    stop = model.tokenizer.stop
    found: dict[int, dict[str, Any]] = {}
    for done, (one, token) in enumerate(flight.go(prompts, counts, pick, stop), 1):
        hashes.setdefault(one.number, hashlib.sha256()).update(last[0])
        bars.step("decode", done, sum(counts))
        if token in stop or len(one.tokens) == one.count:
            if not options.as_json:
                bars.stop()
            found[one.number] = _told(model, one, hashes[one.number].hexdigest())
            number, text = lines[one.number]
            answers.put({"line": number, "prompt": text, **found[one.number]})
    return [answer for _, answer in sorted(found.items())]


# --- what comes out ---------------------------------------------------------------------------
def _told(model: Model, one: Generation, logits: str) -> dict[str, Any]:
    return {
        "text": model.tokenizer.decode(one.tokens),
        "prompt_ids": list(one.prompt),
        "output_ids": one.tokens,
        "finish_reason": finish_reason(one.tokens, model.tokenizer.stop),
        "slot": one.slot,
        "queued_s": one.entered_s,
        "time_to_first_token_s": one.first_token_s,
        "tokens_per_s": one.tokens_per_s,
        "logits_sha256": logits,
    }


def emulated(lowered: Lowered | None, flight: Flight) -> dict[str, Any]:
    """What the cluster did, beat by beat, and what its users saw.

    `tokens_per_s` is the mean of all users, `tokens_per_s_total` that of the whole run with its
    beginning and its end, `steady_tokens_per_s_total` that while every slot was decoding.
    """
    everyone, link = flight.generations, flight.link
    decode = [beat for beat in flight.beats if beat.kind == "decode"]
    prefill = [beat for beat in flight.beats if beat.kind == "prefill"]
    rates = [one.tokens_per_s for one in everyone if one.tokens_per_s]
    first = [one.first_token_s for one in everyone]
    end_s = max(one.token_s[-1] for one in everyone)
    work = next(work for beat in decode for work in beat.works if work)
    return {
        "clock_hz": link.spec.clock_hz,
        "prefill_cycles": sum(beat.cycles for beat in prefill),
        "prefill_beat_cycles": [beat.cycles for beat in prefill],
        "decode_cycles": [beat.cycles for beat in decode],
        "seconds": end_s,
        "time_to_first_token_s": sum(first) / len(first),
        "time_to_first_token_max_s": max(first),
        "tokens_per_s": sum(rates) / len(rates) if rates else None,
        "tokens_per_s_total": sum(len(one.tokens) for one in everyone) / end_s,
        "steady_tokens_per_s_total": steady_tokens_per_s(everyone, flight.slots),
        "host_transfer_s": link.in_s(work) + link.out_s(work),
    }


def _energy(lowered: Lowered, flight: Flight, crew: Crew) -> dict[str, Any]:
    """Joules of the chips over the whole run, per token of the answers; null if not known."""
    table = energy_table(lowered.plan.spec)
    if table is None:
        return {"joules_per_token": None}
    programs: Counter[bytes] = Counter()
    for name, times in Counter(crew.names).items():
        for chip, part in crew.parts[name].items():
            programs[lowered.launches[part].programs[chip]] += times
    dynamic = table.dynamic_j(activity(programs, lowered.plan.spec))
    chips = len(lowered.chips) + len(lowered.transit_chips)
    tokens = sum(len(one.tokens) for one in flight.generations)
    spent = Joules(table, chips, dynamic, max(one.token_s[-1] for one in flight.generations))
    return {"joules_per_token": spent.chips_j / tokens}


def _host(host: Host, flight: Flight, entries: Sequence[Entry]) -> dict[str, Any]:
    by_kind: dict[str, list[Entry]] = {"prefill": [], "decode": []}
    for beat, entry in zip(flight.beats, entries, strict=True):
        by_kind[beat.kind].append(entry)
    wall_s = sum(entry.wall_s for entry in entries)
    tokens = sum(len(one.tokens) for one in flight.generations)
    return host_shape(host, by_kind["prefill"], by_kind["decode"]) | {
        "tokens_per_s": tokens / wall_s
    }


def summary_of_many(report: Mapping[str, Any]) -> dict[str, str]:
    """The few lines a person wants to see, by label: each answer, then how fast."""
    plan, fast, host = report["plan"], report["emulated"], report["host"]
    said = {
        f"{number}": f"{counted(len(one['output_ids']), 'token')} ({one['finish_reason']}), "
        f"the first after {one['time_to_first_token_s'] * 1e3:.3f} ms, "
        f"then {_rate(one['tokens_per_s'])} tokens/s"
        for number, one in enumerate(report["sequences"], 1)
    }
    beats = sorted(set(fast["decode_cycles"]))
    return said | {
        "plan": f"{counted(plan['chips'], 'chip')} on {plan['topology']}: "
        f"{counted(plan['pp'], 'stage')} x tp {plan['tp']}, {plan['concurrency']} in flight, "
        f"at most {plan['sram_bytes_max'] / 2**20:.1f} MiB of SRAM each",
        "prefill": f"{fast['prefill_cycles']:,} cycles in "
        f"{counted(len(fast['prefill_beat_cycles']), 'beat')}",
        "decode": f"{counted(len(fast['decode_cycles']), 'beat')} of {beats[0]:,} to "
        f"{beats[-1]:,} cycles at {fast['clock_hz'] / 1e6:,.0f} MHz",
        "emulated": f"{_rate(fast['tokens_per_s'])} tokens/s per user, "
        f"{_rate(fast['tokens_per_s_total'])} in all, "
        f"{_rate(fast['steady_tokens_per_s_total'])} while all slots decode",
        "this host": f"{host['tokens_per_s']:,.1f} tokens/s ({host['machine']}), "
        f"load {host['load_s']:.1f} s, peak {host['peak_rss_bytes'] / 2**30:.2f} GiB",
        "digest": report["digest"],
    }


def _rate(value: float | None) -> str:
    return "no" if value is None else f"{value:,.0f}"
