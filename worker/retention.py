"""Which of a job's checkpoints stay in the store: the last states, and the best by evaluation, as its spec says.

Of adapters the newest stays: an attempt that died between exporting and telling of it has left one of the same step.

The trainer prunes its own folder by the same rule. Removal has two phases: the row is marked first, so that nobody
resumes from a checkpoint that is going away, then its files are deleted. A kill in between leaves objects without a
living row, never a row without its objects. What its owner has pinned stays, and takes no other's place.
"""

import logging
from collections.abc import Sequence

from sqlalchemy import func

from jobs import checkpoints
from jobs.db import SessionFactory, transaction
from jobs.errors import Unavailable
from jobs.leases import Claim
from jobs.store import ObjectStore
from jobs.tables import Checkpoint
from worker.fence import Fence

log = logging.getLogger(__name__)

# One to resume from and the one before, should its files turn out to be damaged.
_FEWEST_LAST = 2


def superfluous(states: Sequence[Checkpoint], *, keep_last: int, keep_best: int) -> list[Checkpoint]:
    """Returns the states that need not be kept.

    Args:
        states: All that are not pinned, the best choice to resume from first.
        keep_last: How many of the first to keep; two at least.
        keep_best: How many of the highest evaluation reward to keep.
    """
    rated = [(state.eval_reward, state) for state in states if state.eval_reward is not None]
    best = [state for _, state in sorted(rated, key=lambda pair: pair[0], reverse=True)][:keep_best]
    kept = {state.id for state in [*states[: max(keep_last, _FEWEST_LAST)], *best]}
    return [state for state in states if state.id not in kept]


def prune(sessions: SessionFactory, store: ObjectStore, claim: Claim, fence: Fence) -> None:
    """Removes the superfluous states of a claimed job from database and store.

    Raises:
        LeaseLost: The epoch is over.
        DatabaseUnavailable: Nothing was removed.
    """
    kept = claim.spec["checkpoint"]
    with transaction(sessions) as session:
        fence.pass_through(session)
        states = [row for row in checkpoints.of_kind(session, claim.job_id, "state") if row.pinned_at is None]
        going = superfluous(states, keep_last=kept["keep_last"], keep_best=kept["keep_best"])
        adapters = checkpoints.of_kind(session, claim.job_id, "adapter")
        going += [adapter for adapter in adapters[1:] if adapter.pinned_at is None]
        for state in going:
            state.deleted_at = func.clock_timestamp()
    for state in going:
        _delete_files(store, state)


def _delete_files(store: ObjectStore, state: Checkpoint) -> None:
    try:
        for file in state.files:
            store.delete(f"{state.object_prefix}/{file['path']}")
    except Unavailable as error:  # The row is gone for users; what is left costs space and nothing else.
        log.warning("event=files_left_behind prefix=%s error=%s", state.object_prefix, error)
