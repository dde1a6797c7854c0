"""Whatever text or bytes a parser of ours is given, it answers or refuses in one line.

Seconds in CI; `make soak` spends a minute on each.
"""

import json
import math
from pathlib import Path

import click
import networkx as nx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chip.errors import ChipError
from chip.own_spec import find
from cluster.cli import OUR_ERRORS
from cluster.commands.parameters import DRIFT, ByteCount
from cluster.errors import ClusterError
from cluster.files import read_lines
from cluster.machines.ray.addresses import place
from cluster.model.hf_tokenizer import read_tokenizer
from cluster.model.load import find_model
from cluster.model.stop_tokens import stop_tokens
from cluster.model.weights.safetensors import open_folder
from topology import TopologyError, parse
from topology.faults import apply
from topology.links import profile
from topology.registry import FAMILIES

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))
WORDS = st.sampled_from([*FAMILIES, "link", "chip", "node", "links", "chips", "nodes", "auto"])
SIGNS = st.sampled_from([*":x-,=/.[]0123456789 \n\0٣½é", "9" * 20, "-1", "1e9", "nan"])
TEXTS = st.lists(WORDS | SIGNS | st.text(max_size=3), max_size=8).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def refused_in_one_line(act) -> None:
    try:
        act()
    except (ClusterError, ChipError, TopologyError, click.UsageError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        assert text.strip() and "Traceback" not in text
        classes = {f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__}
        assert classes & OUR_ERRORS or isinstance(error, click.UsageError)


@ANY
@given(spec=TEXTS)
def test_topologies(spec):
    small = [part for part in spec.replace("x", ":").split(":") if part.isdecimal()]
    if math.prod(int(part) for part in small) < 5000:  # larger ones are slow to build, not wrong
        refused_in_one_line(lambda: parse(spec))


@ANY
@given(faults=TEXTS)
def test_faults(faults):
    refused_in_one_line(lambda: apply(parse("ring:5"), faults))


@ANY
@given(field=st.sampled_from(["latency_cycles", "cycles_per_vector", "count", "clock_hz"]) | TEXTS,
       value=TEXTS | st.integers() | st.floats() | st.fractions())  # fmt: skip
def test_links(field, value):
    refused_in_one_line(lambda: profile("ship", {field: value}))


@ANY
@given(text=TEXTS)
def test_sizes_and_numbers(text):
    for kind in (ByteCount(), DRIFT):
        refused_in_one_line(lambda kind=kind: kind.convert(text, None, None))


@ANY
@given(address=TEXTS)
def test_addresses(address):
    refused_in_one_line(lambda: place(address, {}))


@ANY
@given(data=st.binary(max_size=60) | TEXTS.map(lambda text: text.encode("utf-8", "replace")))
def test_prompts(data, tmp_path):
    path = tmp_path / "prompts"
    path.write_bytes(data)
    refused_in_one_line(lambda: read_lines(path))


@ANY
@given(eos=VALUES, more=st.dictionaries(st.text(max_size=8), VALUES, max_size=2))
def test_generation_configs(eos, more, tmp_path):
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": eos, **more}))
    refused_in_one_line(lambda: stop_tokens(tmp_path))


@ANY
@given(name=st.sampled_from(["tokenizer", "tokenizer_config"]), value=VALUES)
def test_tokenizer_files(name, value, tmp_path):
    source = Path(__file__).parent / "data" / "two-stop-tokens"
    for file in ("tokenizer", "tokenizer_config", "generation_config"):
        (tmp_path / f"{file}.json").write_bytes((source / f"{file}.json").read_bytes())
    whole = json.loads((tmp_path / f"{name}.json").read_text())
    key = sorted(whole)[hash(repr(value)) % len(whole)]
    (tmp_path / f"{name}.json").write_text(json.dumps(whole | {key: value}))
    refused_in_one_line(lambda: read_tokenizer(tmp_path).encode_prompt("a", raw=True))


@ANY
@given(data=st.data())
def test_graph_files(data, tmp_path):
    path = tmp_path / data.draw(st.sampled_from(["g.graphml", "g.json"]))
    if path.suffix == ".json":
        whole = json.dumps({"links": [[0, 1, {"count": 2}], [1, 2]]}).encode()
    else:
        nx.write_graphml(nx.path_graph(3), path)
        whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.binary(max_size=6))
    path.write_bytes(whole[:at] + new + whole[at + len(new) :])
    refused_in_one_line(lambda: parse(f"file:{path}"))


# --- models, weights, chips -----------------------------------------------------------------------
ARCHITECTURES = sorted((Path(__file__).parent / "data" / "architectures").iterdir())


@ANY
@given(folder=st.sampled_from(ARCHITECTURES), more=st.dictionaries(st.text(max_size=8), VALUES),
       data=st.data())  # fmt: skip
def test_model_configs(folder, more, data, tmp_path):
    whole = json.loads((folder / "config.json").read_text())
    changed = {data.draw(st.sampled_from(sorted(whole))): data.draw(VALUES) for _ in range(2)}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(whole | data.draw(st.sampled_from([{}, more])) | changed))
    refused_in_one_line(lambda: find_model(str(path)))


@ANY
@given(data=st.data())
def test_safetensors_files(data, tmp_path):
    source = ARCHITECTURES[0]
    whole = (source / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    at = data.draw(st.integers(0, 400))
    new = data.draw(st.binary(max_size=9) | TEXTS.map(lambda text: text.encode()))
    cut = data.draw(st.sampled_from([len(whole), len(whole), 3, 100, len(whole) // 2]))
    (tmp_path / "model.safetensors").write_bytes((whole[:at] + new + whole[at + len(new) :])[:cut])
    refused_in_one_line(lambda: open_folder(tmp_path, "it").embedding_rows([1]))


@ANY
@given(key=st.sampled_from(["lanes", "clock_hz", "mxm_types", "d_func_cycles", "name", "base"])
       | st.text(max_size=5), value=VALUES, text=TEXTS)  # fmt: skip
def test_chips_in_toml(key, value, text, tmp_path):
    path = tmp_path / "chip.toml"
    for body in (f"{json.dumps(key)} = {json.dumps(value)}", f"{key} = {text}", text):
        path.write_bytes(body.encode("utf-8", "replace"))
        refused_in_one_line(lambda: find(str(path)))
