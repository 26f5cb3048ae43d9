"""The faults themselves: what is done to a process, to the network, to the store, and what ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil
from chaos_schedule import Fault
from chaos_service import LEASE_S, ChaosService, Victim, wait_for

# A worker that wakes up, or gets its database back, after its lease and after the reaper of another worker has looked.
SLEEP_S = LEASE_S + 0.5
# For a worker to claim a job, so that there is something to strike.
PATIENCE_S = 15.0


@dataclass(frozen=True)
class Struck:
    """A fault that was not in vain: its kind, and when it began by the machine's clock."""

    kind: str
    began: float


class Faults:
    """Strikes a service; what ends by itself later is ended by threads of their own."""

    def __init__(self, service: ChaosService, keep_busy: Callable[[], None]) -> None:
        self._service = service
        self._keep_busy = keep_busy
        self._alarms: list[threading.Timer] = []
        self.struck: list[Struck] = []
        self._does: dict[str, Callable[[Fault], str | None]] = {
            "kill": self._kill,
            "stop": self._stop,
            "flush": self._flush,
            "cut": self._break_network,
            "hang": self._break_network,
            "fail": self._spoil_store,
            "slow": self._spoil_store,
            "truncate": self._spoil_store,
            "fill": self._fill_disk,
        }

    def strike(self, fault: Fault) -> str:
        """Does what the fault says, and returns what was done."""
        began = time.time()
        done = self._does[fault.action](fault)
        if done is None:
            return f"{fault.kind}: there was none to strike"
        self.struck.append(Struck(fault.kind, began))
        return f"{fault.kind}: {done}"

    def _victim(self, kind: str, target: int) -> Victim | None:
        """Waits for a victim, with jobs in the queue meanwhile."""
        with suppress(AssertionError):
            victims = wait_for(lambda: self._keep_busy() or self._service.victims(kind), kind, PATIENCE_S)
            return victims[target % len(victims)]
        return None

    def _kill(self, fault: Fault) -> str | None:
        victim = self._victim(fault.what, fault.target)
        if victim is None:
            return None
        if victim.name in self._service.servers.processes:
            # Postgres forks a process for each connection: one that comes now would outlive it and hold its memory.
            _each(Victim(victim.name, victim.processes[:1]), psutil.Process.suspend)
            victim = next(iter(self._service.victims(victim.name)), victim)
        _each(victim, psutil.Process.kill)
        self._service.start_again(victim.name)
        return victim.name

    def _stop(self, fault: Fault) -> str | None:
        """The trainer of a stopped worker goes on meanwhile, and has news for it when it wakes up."""
        victim = self._victim(fault.what, fault.target)
        if victim is None:
            return None
        seconds = SLEEP_S if fault.what == "worker" else fault.lasts_s
        _each(victim, psutil.Process.suspend)
        self._later(seconds, lambda: _each(victim, psutil.Process.resume))
        return f"{victim.name} for {seconds:.1f} s"

    def _flush(self, fault: Fault) -> str:
        self._service.servers.flush_broker()
        return "all messages are gone"

    def _break_network(self, fault: Fault) -> str | None:
        """Connections to the database are refused and reset for a moment, or say nothing for longer than the lease."""
        victim = self._victim("network", fault.target)
        if victim is None:
            return None
        network = self._service.networks[victim.name]
        seconds = SLEEP_S if fault.action == "hang" else fault.lasts_s
        network.hang() if fault.action == "hang" else network.cut()
        self._later(seconds, network.mend)
        return f"of {victim.name} for {seconds:.1f} s"

    def _spoil_store(self, fault: Fault) -> str:
        store = self._service.store
        wait_for(lambda: store.mode == "open", "end of the fault before")
        store.mode = fault.action
        self._later(fault.lasts_s, store.mend)
        return f"for {fault.lasts_s:.1f} s"

    def _fill_disk(self, fault: Fault) -> str | None:
        disk = self._service.disk
        if disk.refused is not None:
            print(f"no disk can be filled here: {disk.refused}")
            return None
        victim = self._victim("disk", fault.target)
        if victim is None:
            return None
        disk.fill(victim.processes[0].pid)
        self._later(fault.lasts_s, lambda: disk.empty(victim.processes[0].pid))
        return f"of {victim.name} for {fault.lasts_s:.1f} s"

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        alarm = threading.Timer(seconds, action)
        alarm.start()
        self._alarms.append(alarm)

    def settle(self) -> None:
        """Returns when every fault has ended and no worker runs a trainer."""
        for alarm in self._alarms:
            alarm.join()
        wait_for(lambda: not self._service.victims("trainer"), "end of the last trainer")
        self._service.servers.wait_ready()

    def close(self) -> None:
        for alarm in self._alarms:
            alarm.cancel()


def _each(victim: Victim, action: Callable[[psutil.Process], None]) -> None:
    """It may have been killed meanwhile, and its pid given to another: psutil compares the start time."""
    for process in victim.processes:
        with suppress(psutil.NoSuchProcess):
            action(process)
