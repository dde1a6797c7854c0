"""A way into a Ray cluster that runs already, with our code for its workers."""

import os
from typing import Any

import ray
from ray import exceptions
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from cluster.machines.ray import surroundings
from cluster.machines.ray.addresses import Place

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


def calm() -> None:
    """Keep Ray from reporting to anyone, and from writing to our stdout."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")  # no reports to anyone; no warning about GPUs
    ray._private.worker.print_to_stdstream = surroundings.note


def join(place: Place) -> None:
    """Connect this process to a cluster; raises BadValue, which names it, when that cannot be."""
    place.knock(gcs_service_pb2, gcs_service_pb2_grpc)
    try:
        with surroundings.undisturbed(), surroundings.our_code() as code:
            ray.init(place.address, runtime_env=code, **QUIET)
    except (OSError, ValueError, RuntimeError, exceptions.RayError) as error:
        raise place.error(f"no Ray cluster there: {error}") from None
