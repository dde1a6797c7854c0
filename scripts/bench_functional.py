"""Functional benchmark: speed of emulated chips beside a plain NumPy float32 forward pass.

    python scripts/bench.py functional [--weights fp16|int8] [--prefill TOKENS] [--threads N]
                                       [--rounds N] [--out FILE]

Both run in this process on the same number of threads, in turns: a round is a few tokens of the
one, then the same tokens of the other, so that both meet the same state of the host. The ratio is
the median over the rounds of (local tokens/s) / (reference tokens/s). A third as many rounds then
take in a prompt of --prefill tokens: until the logits after its last token.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BUSY = 0.5  # load average above which threads of a BLAS wait for each other
PROMPT = "Explain in two sentences why the sky is blue."
LIBRARIES = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "NUMBA_NUM", "VECLIB_MAXIMUM")
THREAD_VARIABLES = [f"{library}_THREADS" for library in LIBRARIES]
SETTLE_S = 0.05  # after which threads that helped the one no longer disturb the other


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench.py functional")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=8, help="of a round")
    parser.add_argument("--prefill", type=int, default=256, metavar="TOKENS", help="0: decode only")
    parser.add_argument("--tp", type=int)
    parser.add_argument("--pp", type=int)
    parser.add_argument("--weights", choices=["fp16", "int8"], default="fp16")
    parser.add_argument("--out", type=Path, help="append the result to this file as a JSON line")
    return parser.parse_args(arguments)


class Contest:
    """Both decoders with the same prompt behind them; imports late, after the threads are set."""

    def __init__(self, given: argparse.Namespace) -> None:
        from cluster.compiler.choose import PlanRequest, choose
        from cluster.compiler.lower import lower
        from cluster.compiler.place import place
        from cluster.generation.sampling import Sampling
        from cluster.machines.machine import LocalMachine
        from cluster.model.load import load_model
        from cluster.model.reference import Reference
        from cluster.program_store import own_store
        from cluster.serving.engine import PipelineRunner

        start = time.perf_counter()
        model = load_model(given.model)
        choice = choose(model.model, PlanRequest(tp=given.tp, pp=given.pp, weights=given.weights))
        placement = place(choice.plan, choice.graph, choice.topology)
        size = choice.plan, placement, choice.graph, model.weights
        lowered = lower(*size, kept=own_store().launches)
        machine = LocalMachine(own_store())
        machine.load(lowered, lambda _what, _done, _total: None)
        self.load_s = time.perf_counter() - start
        self.model, self.choice = model, choice
        self.reference = Reference(model.weights, choice.plan.context)
        prompt = model.tokenizer.encode_prompt(PROMPT)
        self.prompt = (prompt * choice.plan.context)[: given.prefill]
        self.run_prompt = lambda: next(
            PipelineRunner(lowered, machine).generate(self.prompt, 1, Sampling(), frozenset())
        )
        runner, room = PipelineRunner(lowered, machine), choice.plan.context + 1 - len(prompt)
        self.tokens = runner.generate(prompt, room, Sampling(), frozenset())
        self.token = next(self.tokens)
        self.reference.forward(prompt)

    def prefill(self) -> tuple[float, float, int]:
        """Take in the prompt with each: both rates, and whether the top token is the same."""
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        token = self.run_prompt()
        ours_s = time.perf_counter() - start
        time.sleep(SETTLE_S)
        self.reference.reset()
        start = time.perf_counter()
        theirs = int(self.reference.forward(self.prompt).argmax())
        theirs_s = time.perf_counter() - start
        count = len(self.prompt)
        return count / ours_s, count / theirs_s, token == theirs

    def round(self, count: int) -> tuple[float, float, int]:
        """Decode `count` tokens with each: both rates, and how often the top token is the same."""
        tokens = [self.token]
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        for _ in range(count):
            tokens.append(next(self.tokens))
        ours_s = time.perf_counter() - start
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        theirs = [int(self.reference.forward([token]).argmax()) for token in tokens[:-1]]
        theirs_s = time.perf_counter() - start
        self.token = tokens[-1]
        agree = sum(a == b for a, b in zip(tokens[1:], theirs, strict=True))
        return count / ours_s, count / theirs_s, agree


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Load both, decode in turns, then take in prompts in turns, which ends what was decoded."""
    contest = Contest(given)
    plan = contest.choice.plan
    found = {
        "bench": "functional",
        "model": contest.model.model.name,
        "weights": given.weights,
        "plan": {"tp": plan.tp, "pp": plan.pp, "topology": contest.choice.topology},
        "threads": given.threads,
        "load_s": contest.load_s,
        "decode": compared(lambda: contest.round(given.tokens), given.rounds, given.tokens),
    }
    if given.prefill:
        found["prefill"] = compared(contest.prefill, -(-given.rounds // 3), len(contest.prompt))
    return found


def compared(
    run: Callable[[], tuple[float, float, int]], rounds: int, tokens: int
) -> dict[str, Any]:
    """Both rates in every round; the first round only warms up."""
    every = [run() for _ in range(rounds + 1)]
    ours, theirs, agree = zip(*every, strict=True)
    return {
        "tokens_per_round": tokens,
        "local_tokens_per_s": ours[1:],
        "reference_tokens_per_s": theirs[1:],
        "ratio": median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True)),
        "same_top_token": agree,  # in each round, so often
    }


def host() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    import numpy as np

    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": commit or "unknown",
    }


def _processor() -> str:
    """Its name, and whether it has AVX-512, on which products of int8 depend most."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    known = [line.partition(":")[::2] for line in lines]
    facts = {name.strip(): value.strip() for name, value in known}
    kind = "with" if "avx512f" in facts.get("flags", "").split() else "without"
    return f"{facts.get('model name') or platform.processor()} {kind} AVX-512"


def show(found: dict[str, Any]) -> None:
    """Print the result for people."""
    for part in (name for name in ("decode", "prefill") if name in found):
        rows = found[part]
        for label, who in (("local machine", "local"), ("NumPy float32", "reference")):
            rates = rows[f"{who}_tokens_per_s"]
            spread = f"{len(rates)} rounds, {min(rates):.2f} to {max(rates):.2f}"
            print(f"{part:8} {label} {median(rates):8.2f} tokens/s, median of {spread}")
        print(f"{part:8} ratio         {rows['ratio']:8.3f}  on {found['threads']} threads")
    plan = f"{found['weights']}, {found['plan']['pp']} stages x tp {found['plan']['tp']}"
    agree = found["decode"]["same_top_token"]
    share = sum(agree) / (len(agree) * found["decode"]["tokens_per_round"])
    print(
        f"{found['model']} {plan}, loaded in {found['load_s']:.1f} s; "
        f"same top token in {share:.1%} of the decode steps"
    )


def run(arguments: Sequence[str]) -> int:
    """Measure and print; append to --out."""
    given = options(arguments)
    for name in THREAD_VARIABLES:  # before NumPy is imported, or they have no effect
        os.environ[name] = str(given.threads)
    about = host()
    print(
        f"{about['cpu']}, {about['cores']} cores, load {about['load_average']:.1f}, Python "
        f"{about['python']}, NumPy {about['numpy']}, commit {about['commit']}"
    )
    if about["load_average"] > BUSY:
        print("the host is busy with something else: these figures will say little")
    found = measure(given) | {"host": about}
    show(found)
    if given.out:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
