"""Weights that several processes hold in shares: a full fine-tune by torch's FSDP2.

Every process keeps an equal share of each weight, its gradient, its average and its moments. A block of the transformer
is whole only while it computes: its weights are gathered before, and its gradients are averaged over the processes and
shared out after (Zhao et al., arXiv 2304.11277; the per-parameter form of `torch.distributed.fsdp.fully_shard`). So
every process must run the same number of forwards and of backwards, in the same order. In checkpoints and exports
weights are whole, and their files are those of one process.

What every process must call: `whole_tensors`, and whatever runs the transformer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from egrpo.processes import Processes


def shard_transformer(transformer: nn.Module, processes: Processes) -> None:
    """Leaves this process its share of every weight; the transformer's parameters are other objects afterwards."""
    # Blocks return views. No family changes them in place: the gradients of all were compared with unsharded ones.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    # By default what is in no block stays gathered after a forward, for a backward. Where none follows (a rollout, an
    # evaluation), the next forward would then not see that the weights have changed.
    for part in (*_blocks(transformer), transformer):
        sharded = fully_shard(part, mesh=mesh, reshard_after_forward=True)
        # The first gathering makes the tensors that all others fill. Rollouts are drawn in inference mode, and what is
        # made in it cannot be filled outside, so it is made here.
        sharded.unshard()
        sharded.reshard()


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard_transformer` was here."""
    return isinstance(module, FSDPModule)


def own_class(module: nn.Module) -> Any:
    """Returns the class that a module had before it was sharded: FSDP2 puts a subclass in its place."""
    kind = type(module)
    return next(base for base in kind.__mro__[1:] if base is not FSDPModule) if is_sharded(module) else kind


def own_share(whole: Tensor, like: Tensor) -> Tensor:
    """Returns of a whole tensor what this process keeps of `like`: all, unless `like` is sharded."""
    if not isinstance(like, DTensor):
        return whole
    # Every process has the whole: nothing is sent.
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def own_size(tensor: Tensor) -> int:
    """Returns how many numbers of a tensor this process holds."""
    return tensor.to_local().numel() if isinstance(tensor, DTensor) else tensor.numel()


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor itself or, if it is sharded, what all processes hold of it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_tensors(tensors: Iterable[tuple[str, Tensor]], *, keep: bool) -> dict[str, Tensor]:
    """Returns whole tensors by name, detached, on the CPU; none where not `keep`, in processes that only take part."""
    kept = {}
    for name, tensor in tensors:
        # One after the other, so that a device never holds more than one that is whole.
        gathered = whole(tensor.detach())
        if keep:
            kept[name] = gathered.cpu().contiguous()
    return kept


def _blocks(transformer: nn.Module) -> Iterator[nn.Module]:
    """The layers that repeat: nearly all of the weights."""
    for child in transformer.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if next(block.parameters(), None) is not None)
