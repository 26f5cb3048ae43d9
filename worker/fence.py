"""The one door through which a claim's writes go into the database."""

from sqlalchemy.orm import Session

from jobs import leases
from jobs.errors import LeaseLost
from jobs.leases import Claim
from jobs.tables import Job
from worker.heartbeat import Heartbeat


class Fence:
    """Lets a transaction write for a claim while its lease is held, by the database's word and by this machine's clock.

    The clock is asked after the row is locked: a transaction that hung until the trainer had to be killed writes
    nothing, even if the database would still take it.
    """

    def __init__(self, claim: Claim, heartbeat: Heartbeat) -> None:
        """Prepares the fence.

        Args:
            claim: The claim; its epoch must still be the job's.
            heartbeat: Knows when the lease counts as lost, and is told what the job's owner wants, which it learns here
                sooner than by its next renewal.
        """
        self._claim = claim
        self._heartbeat = heartbeat

    def pass_through(self, session: Session) -> Job:
        """Returns the job, locked until the transaction ends.

        Raises:
            LeaseLost: The epoch is over, or the lease must be taken for lost.
        """
        job = leases.guard(session, self._claim.job_id, self._claim.epoch)
        if self._heartbeat.lost:
            raise LeaseLost(f"the lease of epoch {self._claim.epoch} of job {self._claim.job_id} ran out here")
        self._heartbeat.desired_state = job.desired_state
        return job
