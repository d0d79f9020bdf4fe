"""Work as a Ray task: with its share of a node, run again where it lost its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ray

from foredraft.errors import Stopped
from foredraft.settings.config import Machine
from speculation import InvalidInput

# The head node: the one machine of a cluster that is never spot.
HEAD = {"node:__internal_head__": 0.001}

# A task that lost its worker or its node is run again. It is not placed in the group of the trial
# that asks: that one holds nothing to share.
OPTIONS = {"max_retries": 3, "scheduling_strategy": "DEFAULT"}


class Share(NamedTuple):
    """What one task is given of a node."""

    cpus: int
    gpus: int = 0
    pins: tuple[str, ...] = ()
    """resources of which only the nodes that are meant have any"""

    @property
    def needs(self) -> dict[str, Any]:
        """What Ray is asked for."""
        resources = dict.fromkeys(self.pins, 0.001)
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": resources}


def submit(work: Callable[..., Any], *arguments: Any, share: Share) -> Any:
    """The future of `work(*arguments)` as a task with its share."""
    return ray.remote(work).options(**OPTIONS, **share.needs).remote(*arguments)


def result(work: Any) -> Any:
    """What a task gave, or raised, as if it had run here: in one line, without its traceback.

    Raises:
        InvalidInput, Stopped: what the task raised of its own.
        RayError: what Ray says where it could not run.
    """
    try:
        return ray.get(work)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException = error
        while isinstance(cause, ray.exceptions.RayTaskError):  # of a task that asked another
            cause = cause.cause
        if isinstance(cause, InvalidInput | Stopped):
            raise cause from error
        raise


def threads(machine: Machine) -> Machine:
    """The machine as this task may use it: as many threads as it was given CPUs."""
    given = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return machine.model_copy(update={"cpus": machine.cpus or int(given) or None})


def last_line(error: Exception) -> str:
    """The last line of an error: Ray's begin with the traceback of the worker."""
    return str(error).strip().rsplit("\n", 1)[-1] or repr(error)
