"""How many CPUs a process may keep busy."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def cpus_for_each(processes: int) -> int:
    """Returns the share of ``available_cpus`` that each of ``processes`` on this machine gets, at least 1.

    SLURM binds each task of a job to CPUs of its own, which are not to be divided again.
    """
    available = available_cpus()
    of_a_task = os.environ.get("SLURM_CPUS_PER_TASK", "0") if os.environ.get("SLURM_NTASKS", "1") != "1" else "0"
    return max(1, min(available, max(available // processes, int(of_a_task))))


def available_cpus(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Counts the CPUs that this process is bound to, or fewer if a quota of its control groups allows fewer whole ones.

    Containers, Kubernetes and systemd limit the time on all CPUs rather than the CPUs, which no count of CPUs shows.

    Args:
        root: Root of the file system whose ``/proc`` and control groups are read.
        affinity: Number of CPUs this process is bound to; by default, what the system says.
    """
    if affinity is None:
        affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    """Yields the quotas, in whole CPUs, of this process's control groups and all around them, of both versions."""
    with suppress(OSError, ValueError):
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
        mounts = [_mount(line) for line in lines if " - cgroup" in line]
        for _, controllers, group in groups:
            if controllers and "cpu" not in controllers.split(","):
                continue
            fitting = [
                (of, at)
                for kind, options, of, at in mounts
                if (kind == "cgroup2" if not controllers else kind == "cgroup" and "cpu" in options)
            ]
            for folder, top in _folders(PurePosixPath(group), fitting):
                for place in (folder, *folder.parents):
                    yield from _quota(root / place.relative_to("/"))
                    if place == top:
                        break


def _mount(line: str) -> tuple[str, list[str], PurePosixPath, PurePosixPath]:
    """Parses kind, options of the file system, which folder of it is mounted, and where; see proc(5)."""
    fields, _, (kind, _, options) = (part.split(" ") for part in line.partition(" - "))
    of, at = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
    return kind, options.split(","), PurePosixPath(of), PurePosixPath(at)


def _folders(
    group: PurePosixPath, mounts: list[tuple[PurePosixPath, PurePosixPath]]
) -> list[tuple[PurePosixPath, PurePosixPath]]:
    """Lists where the group is mounted, with the top of each of these mounts."""
    found = [(at / group.relative_to(of), at) for of, at in mounts if group.is_relative_to(of)]
    # In a container the group's name may be the host's, and its own folder the mount's.
    return found or [(at, at) for _, at in mounts]


def _quota(folder: Path) -> list[int]:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return [int(quota) // int(period)] if quota != "max" and int(period) > 0 else []
    with suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) // int(period)] if int(quota) > 0 and int(period) > 0 else []
    return []
