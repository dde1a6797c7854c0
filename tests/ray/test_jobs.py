"""The two ways onto a cluster: `ray job submit`, and `ray submit` through ssh. Tokens are on."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cluster.tiny import lowered

# Nothing here waits for long unless the host is busy, and then Ray is slow, not broken.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
COMMAND_TIMEOUT_S, READY_TIMEOUT_S, HEAD_TRIES = 400, 200, 3
ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
SWEEP = [sys.executable, "-m", "cluster", "sweep"]
QUESTION = 'model = "tiny"\n[grid]\ntp = [1, 2, 4]\ntopology = ["node", "ring:6"]\n'
ARGUMENTS = [
    "tiny",
    "--prompt",
    "hello",
    "--tp",
    "2",
    "--pp",
    "1",
    "--max-new-tokens",
    "2",
    "--json",
]
# How long Ray waits for parts of itself. That its raylet is up within 30 s, it insists on.
PATIENCE = ("RAY_gcs_server_port_wait_time_s", "RAY_DASHBOARD_STARTUP_TIMEOUT_S")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
WITH_SSH = pytest.mark.skipif(
    not (SSHD and shutil.which("rsync")),
    reason="ray submit needs sshd and rsync: install openssh-server and rsync",
)
Submit = Callable[..., "subprocess.CompletedProcess[str]"]
# A connection to our sshd: Ray cannot tell ssh a port, nor rsync a command with spaces.
RELAY = """#!{python}
import os, socket, threading
link = socket.create_connection(("127.0.0.1", {port}))
def there():
    for data in iter(lambda: os.read(0, 65536), b""):
        link.sendall(data)
threading.Thread(target=there, daemon=True).start()
for data in iter(lambda: link.recv(65536), b""):
    os.write(1, data)
"""


def free_port() -> int:
    """A port that is free now, and that neither Ray nor the kernel gives to anyone unasked."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def head_command(folder: Path, port: int, *more: str) -> list[str]:
    """`ray start` of a small head on loopback that shares nothing with any other Ray here."""
    random_ports = [f"--{name}=0" for name in ("min-worker-port", "max-worker-port")]
    return [
        str(BIN / "ray"), "start", "--head", f"--port={port}", "--num-cpus=2",
        "--disable-usage-stats", "--node-ip-address=127.0.0.1",
        f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
        "--object-store-memory=100000000", f"--temp-dir={folder}", *random_ports, *more,
    ]  # fmt: skip


@pytest.fixture
def place(monkeypatch):
    """A folder for everything, with a token in it; what runs in it at the end is killed."""
    folder = Path(tempfile.mkdtemp(prefix="lpu-job-", dir="/tmp"))
    (folder / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # stay on 127.0.0.1
    for name in PATIENCE:
        monkeypatch.setenv(name, str(READY_TIMEOUT_S))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield folder
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and int(path.name) != os.getpid():
            os.kill(int(path.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False,
        timeout=COMMAND_TIMEOUT_S, **options,
    )  # fmt: skip


def report(output: str, first: str = "model") -> dict:
    """The JSON object among the lines that Ray has added, by its first key."""
    begin = f'{{"{first}"'
    line = next(line for line in output.splitlines() if begin in line)
    return json.loads(line[line.index(begin) : line.rindex("}") + 1])


@pytest.fixture(scope="module")
def expected() -> dict:
    assert lowered(2, 1, "node")
    return report(run(sys.executable, "-m", "cluster", "run", *ARGUMENTS).stdout)


def wait_for(port: int, process: subprocess.Popen) -> bool:
    """Wait until something listens on a port; False if the process that should has ended."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.3)
    return False


def start_head(place: Path) -> tuple[subprocess.Popen, int]:
    """A head with a dashboard, and the port of that. Ray gives up on a slow one: try again."""
    for attempt in range(HEAD_TRIES):
        dashboard = free_port()
        served = f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--block"
        log = (place / f"head{attempt}.log").open("w")
        head = subprocess.Popen(
            head_command(place / f"ray{attempt}", free_port(), *served),
            stdout=log, stderr=log, start_new_session=True,  # it ends its process group
        )  # fmt: skip
        if wait_for(dashboard, head):
            return head, dashboard
    raise AssertionError((place / f"head{HEAD_TRIES - 1}.log").read_text())


@contextmanager
def job_submit(place: Path) -> Iterator[list[str]]:
    """A head, and the command that submits a job to it."""
    head, dashboard = start_head(place)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        yield [str(BIN / "ray"), "job", "submit", "--address", address, "--working-dir", "."]
    finally:
        head.terminate()
        head.wait(timeout=30)


@contextmanager
def ray_submit(place: Path) -> Iterator[Submit]:
    """A head of scripts/cluster.yaml behind ssh, and what submits a script with arguments to it."""
    pytest.importorskip("yaml")
    port = free_port()
    sshd = start_sshd(place, port)
    try:
        assert wait_for(port, sshd), (place / "sshd.log").read_text()
        file, address = ray_up(place, port)

        def submit(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            options = ["--no-config-cache", "--disable-usage-stats"]
            given = [file, str(ROOT / "scripts" / script), "--", *arguments]
            # Named, as `auto` refuses to choose where another Ray runs on this host, too.
            return run(str(BIN / "ray"), "submit", *options, *given, "--address", address)

        yield submit
    finally:
        sshd.terminate()
        sshd.wait(timeout=30)


def test_a_submitted_job_gives_the_digest_of_the_local_run(place, expected):
    with job_submit(place) as submit:
        command = [sys.executable, "-m", "cluster", "run", *ARGUMENTS, "--machine", "ray"]
        done = run(*submit, "--", *command)
        assert done.returncode == 0, done.stdout + done.stderr
        found = report(done.stdout)
        assert found["digest"] == expected["digest"] and found["host"]["actors"] == 2
        stranger = os.environ | {"RAY_AUTH_TOKEN_PATH": str(place / "other")}
        (place / "other").write_text(secrets.token_hex(32))
        refused = run(*submit, "--", "true", env=stranger)
        assert refused.returncode != 0 and "oken" in refused.stdout + refused.stderr


@pytest.mark.soak
def test_a_submitted_server_and_a_submitted_replay_say_what_they_say_here(place):
    replay = ["replay", "--model", "tiny", "--load", "poisson:900", "--lengths", "~40:~8"]
    replay += ["--requests", "50", "--slots", "3", "--json"]
    lpu = [sys.executable, "-m", "cluster"]
    head, dashboard = start_head(place)
    try:
        submit = [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{dashboard}"]
        submit += ["--working-dir", "."]
        done = run(*submit, "--", *lpu, *replay)
        assert done.returncode == 0, done.stdout + done.stderr
        theirs, ours = report(done.stdout), report(run(*lpu, *replay).stdout)
        for found in (theirs, ours):
            del found["wall_s"], found["plan_s"]
        assert theirs == ours
        port = free_port()
        serve = [*lpu, "serve", "tiny", "--tp", "2", "--pp", "1", "--port", str(port)]
        named = [*submit, "--no-wait", "--submission-id", "served", "--"]
        run(*named, *serve, "--machine", "ray", "--embeddings", "none")
        assert wait_for(port, head)
        body = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "temperature": 0}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=200)
        command = ["run", "tiny", "--prompt", "hello", "--tp", "2", "--pp", "1", "--json"]
        alone = report(run(*lpu, *command, "--max-new-tokens", "8").stdout)
        assert answer.json()["choices"][0]["text"] == alone["text"]
        run(*submit[:2], "stop", *submit[3:5], "served")
    finally:
        head.terminate()
        head.wait(timeout=30)


@WITH_SSH
def test_ray_submit_reaches_a_local_provider_head_through_ssh(place, expected):
    with ray_submit(place) as submit:
        done = submit("run_model.py", *ARGUMENTS)
        assert done.returncode == 0, done.stdout + done.stderr
        assert report(done.stdout)["digest"] == expected["digest"]


@pytest.fixture(scope="module")
def local_rows(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """A question, and the files of its rows as processes of this host write them."""
    file = tmp_path_factory.mktemp("sweep") / "question.toml"
    file.write_text(QUESTION)
    folder = file.parent / "local"
    done = run(*SWEEP, str(file), "--output", str(folder), "--fresh", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return file, {path.name: path.read_bytes() for path in folder.glob("results.*")}


def check_rows(done: subprocess.CompletedProcess[str], folder: Path, rows: dict) -> None:
    """Every point was computed, and its row is that of a local sweep, byte for byte."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = report(done.stdout, "answer")
    assert (found["points"], found["computed"], found["failed"]) == (6, 6, 0)
    assert {path.name: path.read_bytes() for path in folder.glob("results.*")} == rows


@pytest.mark.soak
def test_a_sweep_submitted_as_a_job_writes_the_rows_of_a_local_one(place, local_rows):
    file, rows = local_rows
    options = [str(file), "--output", str(place / "out"), "--fresh", "--json"]
    with job_submit(place) as submit:
        check_rows(run(*submit, "--", *SWEEP, *options), place / "out", rows)


@pytest.mark.soak
@WITH_SSH
def test_a_sweep_of_ray_submit_writes_the_rows_of_a_local_one(place, local_rows):
    file, rows = local_rows
    options = [str(file), "--output", str(place / "out"), "--fresh", "--json"]
    with ray_submit(place) as submit:
        check_rows(submit("run_sweep.py", *options), place / "out", rows)


def ray_up(place: Path, sshd_port: int) -> tuple[str, str]:
    """`ray up` of scripts/cluster.yaml, on this host; the filled-in file, the head's address."""
    for attempt in range(HEAD_TRIES):
        port, file = free_port(), place / f"cluster{attempt}.yaml"
        head = head_command(place / f"ray{attempt}", port, "--include-dashboard=false")
        write_yaml(file, place, sshd_port, " ".join(head))
        options = ["-y", "--no-config-cache", "--disable-usage-stats"]
        done = run(str(BIN / "ray"), "up", *options, str(file))
        if done.returncode == 0:
            return str(file), f"127.0.0.1:{port}"
    raise AssertionError(done.stdout + done.stderr)


def write_yaml(file: Path, place: Path, sshd_port: int, start: str) -> None:
    """scripts/cluster.yaml, with this host as its head and no workers."""
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((ROOT / "scripts" / "cluster.yaml").read_text())
    kept = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    settings = " ".join(f"{name}={os.environ[name]}" for name in (*kept, *PATIENCE))
    config |= {
        "cluster_name": f"{place.name}-{file.stem}",
        "min_workers": 0, "max_workers": 0, "setup_commands": [],
        "file_mounts": {str(place / "code"): str(ROOT)},
        "head_start_ray_commands": [f"{settings} {start}"], "worker_start_ray_commands": [],
    }  # fmt: skip
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    relay = place / "relay"
    relay.write_text(RELAY.format(python=sys.executable, port=sshd_port))
    relay.chmod(0o755)
    config["auth"] = {
        "ssh_user": os.environ.get("USER", "root"),
        "ssh_private_key": str(place / "key"),
        "ssh_proxy_command": str(relay),
    }
    file.write_text(yaml.safe_dump(config))


def start_sshd(place: Path, port: int) -> subprocess.Popen:
    """An sshd of our own on loopback, which lets in one key, and gives it this environment."""
    for name in ("host", "key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name))
    shutil.copy(place / "key.pub", place / "authorized")
    kept = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    passed = {name: os.environ[name] for name in kept}
    passed |= {"LPU_HOME": str(place / "code"), "LPU_PYTHON": sys.executable}
    names = " ".join(f'{name}="{value}"' for name, value in passed.items())
    (place / "sshd.conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place / 'host'}\nStrictModes no\n"
        f"AuthorizedKeysFile {place / 'authorized'}\nPasswordAuthentication no\nUsePAM no\n"
        f"PidFile none\nSetEnv {names}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd separates privileges
    command = [str(SSHD), "-D", "-e", "-f", str(place / "sshd.conf")]
    return subprocess.Popen(command, stderr=(place / "sshd.log").open("w"))
