"""Where a Ray cluster is said to be: every form, and every way in which it is not there."""

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from cluster.errors import BadValue
from cluster.machines.ray.addresses import place

TOKENS = {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://127.0.0.1:8265", "is of Ray's dashboard"),
        ("https://head:8265", "is of Ray's dashboard"),
        ("ray://127.0.0.1:10001", "is of Ray Client"),
        ("gopher://x", "is none of Ray's"),
        ("head", "must be HOST:PORT"),
        ("::1:6379", "must be HOST:PORT"),
        ("[::1]", "must be HOST:PORT"),
        ("head:x", "must be HOST:PORT"),
    ],
)
@pytest.mark.parametrize("option", ["--address", "RAY_ADDRESS"])
def test_an_address_that_no_run_can_use_is_refused_under_the_name_it_came_by(
    option, address, problem
):
    given, environment = (address, {}) if option == "--address" else (None, {option: address})
    with pytest.raises(BadValue, match=problem) as error:
        place(given, environment)
    assert str(error.value).startswith(f"{option} {address}: ")


def test_addresses_that_are_good_and_none(tmp_path):
    assert place(None, {}) is None and place(None, {"RAY_ADDRESS": "local"}) is None
    for address in ("auto", "127.0.0.1:6379", "[::1]:6379", "head.cluster:6379"):
        assert place(address, {"RAY_ADDRESS": "http://else:1"}).address == address
    (tmp_path / "token").write_text("abc\n")
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    assert place("auto", TOKENS | path).token == "abc"
    assert place("auto", TOKENS | path | {"RAY_AUTH_TOKEN": "def"}).token == "def"
    assert place("auto", path).token == ""


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe"])
@pytest.mark.parametrize("named", [True, False])
def test_a_token_that_is_wanted_but_not_there_is_named(content, named, tmp_path):
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    environment = TOKENS | ({"RAY_AUTH_TOKEN_PATH": str(path)} if named else {})
    for address in ("127.0.0.1:6379", None):  # also for a Ray of our own, which would abort
        with pytest.raises(BadValue, match=str(path)) as error:
            place(address, environment | {"HOME": str(tmp_path)})
        assert "ray get-auth-token --generate" in str(error.value)


class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    def GetClusterId(self, request, context):
        if ("authorization", "Bearer right") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return gcs_service_pb2.GetClusterIdReply()


def test_who_listens_there_is_asked_before_ray_is():
    def knock(port: int, token: str) -> None:
        found = place(f"127.0.0.1:{port}", TOKENS | {"RAY_AUTH_TOKEN": token} if token else {})
        found.knock(gcs_service_pb2, gcs_service_pb2_grpc)

    server = grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Head(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    knock(port, "right")
    with pytest.raises(BadValue, match="it refuses the token"):
        knock(port, "wrong")
    with pytest.raises(BadValue, match="it wants a token"):
        knock(port, "")
    server.stop(None).wait()
    with pytest.raises(BadValue, match="no Ray cluster there"):
        knock(1, "")
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: [other.accept()[0].close() for _ in range(2)])
        with pytest.raises(BadValue, match="no Ray head"):
            knock(other.getsockname()[1], "")
