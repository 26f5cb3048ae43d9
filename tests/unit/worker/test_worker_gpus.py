"""What a worker offers, from what the driver lists."""

import pytest

from jobs.queue import Pool
from worker.gpus import pool_of

H100S = "".join(f"GPU {n}: NVIDIA H100 80GB HBM3 (UUID: GPU-{n}b8c)\n" for n in range(4))
MIXED = H100S + "GPU 4: NVIDIA GeForce RTX 4090 (UUID: GPU-9)\n"


@pytest.mark.parametrize(
    ("listing", "visible", "pool"),
    [
        ("", None, Pool("cpu", 1)),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", None, Pool("cpu", 1)),
        (H100S, None, Pool("h100-80gb-hbm3", 4)),
        (H100S, "2", Pool("h100-80gb-hbm3", 1)),
        (H100S, "0, 3,9", Pool("h100-80gb-hbm3", 2)),
        (H100S, "GPU-0b8c,GPU-2b8c", Pool("h100-80gb-hbm3", 2)),
        (H100S, "", Pool("cpu", 1)),
        (MIXED, None, Pool("h100-80gb-hbm3", 4)),
        (MIXED, "4", Pool("rtx-4090", 1)),
        (H100S * 3, None, Pool("h100-80gb-hbm3", 8)),
    ],
)
def test_the_pool_of_a_machine(listing: str, visible: str | None, pool: Pool) -> None:
    assert pool_of(listing, visible) == pool
