"""One core for each worker thread.

Under ``OMP_WAIT_POLICY=PASSIVE``, which keeps the threads of one library from spinning while the
next one works, Linux often leaves both workers of a pool on one core for a whole run. The main
thread therefore stays on the first core, and the other threads of the process take the remaining
ones in the order in which they were created, as the pools number them. This holds for all
providers alike.
"""

from __future__ import annotations

import os
import sys

from pykernels.machine import usable_cores


class Pinning:
    """Pins the threads that exist at each `settle`; does nothing where the system cannot, or on one core."""

    def __init__(self) -> None:
        self.cores = usable_cores()
        self.active = sys.platform.startswith("linux") and len(self.cores) > 1
        self._pinned: set[int] = set()

    def settle(self) -> None:
        """Give every thread that is new since the last call a core of its own."""
        if not self.active:
            return
        main = os.getpid()
        for thread in sorted(int(name) for name in os.listdir("/proc/self/task")):
            if thread in self._pinned:
                continue
            workers = len(self._pinned - {main})
            core = self.cores[0] if thread == main else self.cores[1 + workers % (len(self.cores) - 1)]
            try:
                os.sched_setaffinity(thread, {core})
            except ProcessLookupError:
                continue
            except PermissionError:
                self.active = False
                return
            self._pinned.add(thread)

    def release(self) -> None:
        """Let every thread run on all cores again."""
        if self.active:
            for thread in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(thread), self.cores)
            self._pinned.clear()
