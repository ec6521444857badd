"""Trees as the kernel lays them out: cgroups(7), the kernel's cgroup-v2.rst and scheduler/sched-bwc.rst, proc(5)."""

import pytest

from datamodules.workers.cpus import available_cpus, cpus_for_each

V2 = "31 23 0:28 {of} {at} rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 31 0:30 {of} {at} rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "34 31 0:31 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
PROC = "22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw"


def lay_out(root, groups, mounts, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("\n".join(groups) + "\n")
    (root / "proc/self/mountinfo").write_text("\n".join([PROC, MEMORY, *mounts]) + "\n")
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{content}\n")
    return root


CG = "sys/fs/cgroup"
V2_MOUNT = V2.format(of="/", at="/sys/fs/cgroup")
V1_MOUNT = V1.format(of="/", at="/sys/fs/cgroup/cpu,cpuacct")
V1_GROUPS = ["5:memory:/other", "4:cpu,cpuacct:/docker/1f", "1:name=systemd:/docker/1f"]
V1_FILES = {f"{CG}/cpu,cpuacct/docker/1f/cpu.cfs_period_us": 100000}
TREES = {
    "v2, container": (["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "200000 100000"}, 2),
    "v2, rounded down": (["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "299999 100000"}, 2),
    "v2, less than one": (["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "50000 100000"}, 1),
    "v2, more than the CPUs": (["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "12800000 100000"}, 64),
    "v2, no quota": (["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "max 100000"}, 64),
    "v2, of a unit": (["0::/a.slice/b"], [V2_MOUNT], {f"{CG}/a.slice/b/cpu.max": "300000 50000"}, 6),
    "v2, of a group around it": (
        ["0::/a.slice/b:c"],
        [V2_MOUNT],
        {f"{CG}/a.slice/b:c/cpu.max": "max 100000", f"{CG}/a.slice/cpu.max": "400000 100000"},
        4,
    ),
    "v2, the smallest counts": (
        ["0::/a/b"],
        [V2_MOUNT],
        {f"{CG}/a/b/cpu.max": "800000 100000", f"{CG}/a/cpu.max": "300000 100000", f"{CG}/cpu.max": "900000 100000"},
        3,
    ),
    "v2, beside v1 without quota": (
        ["1:cpu,cpuacct:/", "0::/a"],
        [V1_MOUNT, V2.format(of="/", at="/sys/fs/cgroup/unified")],
        {f"{CG}/cpu,cpuacct/cpu.cfs_quota_us": -1, f"{CG}/cpu,cpuacct/cpu.cfs_period_us": 100000},
        64,
    ),
    "v2, moved out of its namespace": (["0::/../b"], [V2_MOUNT], {f"{CG}/cpu.max": "200000 100000"}, 2),
    "v2, a place with a space": (
        ["0::/"],
        [V2.format(of="/", at=r"/sys/fs/c\040group")],
        {"sys/fs/c group/cpu.max": "200000 100000"},
        2,
    ),
    "v1": (V1_GROUPS, [V1_MOUNT], {**V1_FILES, f"{CG}/cpu,cpuacct/docker/1f/cpu.cfs_quota_us": 250000}, 2),
    "v1, no quota": (V1_GROUPS, [V1_MOUNT], {**V1_FILES, f"{CG}/cpu,cpuacct/docker/1f/cpu.cfs_quota_us": -1}, 64),
    "v1, of a group around it": (
        V1_GROUPS,
        [V1_MOUNT],
        {f"{CG}/cpu,cpuacct/docker/cpu.cfs_quota_us": 300000, f"{CG}/cpu,cpuacct/docker/cpu.cfs_period_us": 100000},
        3,
    ),
    "v1, the container's folder is the mount": (
        V1_GROUPS,
        [V1.format(of="/docker/1f", at="/sys/fs/cgroup/cpu,cpuacct")],
        {f"{CG}/cpu,cpuacct/cpu.cfs_quota_us": 200000, f"{CG}/cpu,cpuacct/cpu.cfs_period_us": 100000},
        2,
    ),
    "v1, the name is the host's": (
        V1_GROUPS,
        [V1.format(of="/kubepods/2e", at="/sys/fs/cgroup/cpu,cpuacct")],
        {f"{CG}/cpu,cpuacct/cpu.cfs_quota_us": 200000, f"{CG}/cpu,cpuacct/cpu.cfs_period_us": 100000},
        2,
    ),
    "v1, another controller's quota": (["5:memory:/"], [], {f"{CG}/memory/cpu.cfs_quota_us": 100000}, 64),
    "malformed quota": (["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "lots"}, 64),
    "a period of nothing": (["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "200000 0"}, 64),
    "malformed lines": (["x", "0::/"], ["y - cgroup2", V2_MOUNT], {f"{CG}/cpu.max": "200000 100000"}, 64),
    "no file of the group": (["0::/"], [V2_MOUNT], {}, 64),
    "nothing mounted": (["0::/a"], [], {}, 64),
}


@pytest.mark.parametrize("name", TREES)
def test_a_quota_counts_in_whole_cpus(name, tmp_path):
    groups, mounts, files, expected = TREES[name]
    assert available_cpus(lay_out(tmp_path, groups, mounts, files), affinity=64) == expected


def test_without_proc_and_bound_to_fewer_the_binding_counts(tmp_path):
    assert available_cpus(tmp_path, affinity=3) == 3
    root = lay_out(tmp_path, ["0::/"], [V2_MOUNT], {f"{CG}/cpu.max": "400000 100000"})
    assert available_cpus(root, affinity=3) == 3


@pytest.mark.parametrize(
    ("available", "processes", "job", "expected"),
    [
        (8, 1, {}, 8),
        (8, 4, {}, 2),
        (8, 3, {}, 2),
        (2, 4, {}, 1),
        (8, 4, {"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "8"}, 8),  # bound to its own
        (32, 4, {"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "8"}, 8),  # not bound
        (32, 4, {"SLURM_NTASKS": "4"}, 8),
        (1, 4, {"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "8"}, 1),  # srun without -c
        (32, 4, {"SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "32"}, 8),  # one task whose processes share
    ],
)
def test_each_process_gets_its_share(available, processes, job, expected, monkeypatch):
    monkeypatch.setattr("datamodules.workers.cpus.available_cpus", lambda: available)
    for name in ("SLURM_NTASKS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert cpus_for_each(processes) == expected
