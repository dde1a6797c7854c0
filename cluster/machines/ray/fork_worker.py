"""What Ray runs for a new worker, where there is a fork server: it asks that for one, and ends.

A script with the standard library only, as each worker begins with it. Ray's own script is run
where the server does not answer, or where a worker wants an environment of its own.
"""

import json
import os
import socket
import sys

SOCKET = "forks"  # in Ray's folder
OWN_ENVIRONMENT = "--serialized-runtime-env-context"
ANSWER_TIMEOUT_S = 300.0


def main(arguments: list[str]) -> None:
    """Start the worker `[flags] script options`."""
    at = next(n for n, argument in enumerate(arguments) if argument.endswith(".py"))
    given = dict(option.split("=", 1) for option in arguments[at + 1 :] if "=" in option)
    plain = not any(argument.startswith(OWN_ENVIRONMENT) for argument in arguments)
    path = os.path.join(given.get("--temp-dir", ""), SOCKET)
    worker = [one for one in arguments[at:] if not one.startswith("--language=")]
    if not (plain and _asked(path, worker)):
        usual = os.path.join(os.path.dirname(arguments[at]), "setup_worker.py")
        os.execv(sys.executable, [sys.executable, usual, *arguments])


def _asked(path: str, worker: list[str]) -> bool:
    """Whether the server at `path` has made the worker, with our environment and folder."""
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(ANSWER_TIMEOUT_S)
            server.connect(path)
            server.sendall(json.dumps([worker, os.getcwd(), dict(os.environ)]).encode())
            server.shutdown(socket.SHUT_WR)
            return server.recv(1) != b""
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
