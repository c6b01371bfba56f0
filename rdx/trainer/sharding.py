"""A student in pieces: every process holds a part of each weight, its gradient and its Adam state.

With torch's `fully_shard` (FSDP2), layer by layer: the weights of a layer are put together when it
is computed, in the forward and in the backward pass. Weights stay float32, and autocast computes as
it does without sharding. What is saved and validated is whole.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from rdx.students import CrossEncoder

# torch.distributed.fsdp and .tensor take most of a second to load: only who shards waits for them.


def wanted() -> bool:
    """Whether `accelerate launch --use_fsdp --fsdp_version 2` started this process.

    Only these two options are read.

    Raises
    ------
    ValueError
        If it is another version of FSDP.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(
            f"FSDP_VERSION={version}: students are sharded by FSDP2; "
            "start with: accelerate launch --use_fsdp --fsdp_version 2"
        )
    return True


def sharded(student: CrossEncoder, device: torch.device) -> CrossEncoder:
    """A copy of a student, in pieces on a kind of device; the gradients of all are summed up.

    Both have the same `pairs`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    parts = copy.deepcopy(student, {id(student.pairs): student.pairs})
    for parameter in parts.parameters():
        if parameter.dim() == 0:  # has no dimension to cut
            parameter.data = parameter.data.view(1)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in _layers(parts):
        fully_shard(layer, mesh=mesh)
    fully_shard(parts, mesh=mesh)
    for module in parts.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the sum, where FSDP has the mean
            module.set_force_sum_reduction_for_comms(True)
    return parts


def gather(parts: nn.Module, student: nn.Module) -> None:
    """Put the weights of a sharded student together in a whole one."""
    whole = student.state_dict()
    for name, tensor in parts.state_dict().items():
        whole[name].copy_(_whole(tensor).view_as(whole[name]))


def whole_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state, put together if its parameters are in pieces."""
    state = optimiser.state_dict()
    return state | {
        "state": {
            index: {name: _whole(value) for name, value in values.items()}
            for index, values in state["state"].items()
        }
    }


def load_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load `whole_state`, cut as the parameters are; it may come from any number of processes."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    optimiser.load_state_dict(
        state
        | {
            "state": {
                index: {
                    name: value if name == "step" else _cut(value, parameters[index])
                    for name, value in values.items()
                }
                for index, values in state["state"].items()
            }
        }
    )


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that come in lists."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else _layers(child)


def _in_pieces(value: Any) -> bool:
    """Whether it is one of torch's distributed tensors."""
    return hasattr(value, "full_tensor")


def _whole(value: Any) -> Any:
    """A value; a tensor in pieces, put together in the memory of the CPU."""
    return value.full_tensor().cpu() if _in_pieces(value) else value


def _cut(value: Any, parameter: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.view(parameter.shape)
    if not _in_pieces(parameter):
        return value
    from torch.distributed.tensor import distribute_tensor

    pieces: Any = parameter
    return distribute_tensor(value.to(pieces.device), pieces.device_mesh, pieces.placements)
