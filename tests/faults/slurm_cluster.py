"""A SLURM cluster of one node on this machine, with controller, node and authentication in a temporary folder."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/controller.pid
SlurmdPidFile={root}/node.pid
SlurmctldLogFile={root}/controller.log
SlurmdLogFile={root}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=tiny Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_no_cluster() -> str:
    """Return why no cluster can be started here, or an empty text."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_path()) is None]
    if missing:
        return f"SLURM is not installed: no {', '.join(missing)}"
    # A configuration that lets an ordinary user start the node's daemon needs more than a temporary folder.
    return "" if os.geteuid() == 0 else "starting SLURM's daemons needs root"


@contextmanager
def running_cluster(root: Path) -> Iterator[dict[str, str]]:
    """Start a cluster with the partition ``tiny`` and yield the environment in which SLURM's commands reach it."""
    for folder in ("state", "spool"):
        (root / folder).mkdir()
    (root / "munge").mkdir(mode=0o700)
    (root / "munge/key").write_bytes(secrets.token_bytes(1024))
    (root / "munge/key").chmod(0o400)
    configuration = root / "slurm.conf"
    host, ports = platform.node().split(".")[0], _free_ports()
    text = _CONFIGURATION.format(host=host, root=root, controller=ports[0], node=ports[1], cpus=os.cpu_count())
    configuration.write_text(text)
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(configuration)}
    files = [f"--{name}={root}/munge/{name.split('-')[0]}" for name in ("socket", "key-file", "pid-file", "log-file")]
    commands = (
        ["munged", "--foreground", "--force", *files, f"--seed-file={root}/munge/seed"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", host],
    )
    daemons = []
    try:
        for command in commands:
            daemons.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            time.sleep(0.5)
        _wait_for_node(environment, root)
        yield environment
    finally:
        # Jobs of a test that has failed would outlive the daemons.
        subprocess.run(["scancel", "--state=RUNNING"], env=environment, capture_output=True)
        subprocess.run(["scancel", "--state=PENDING"], env=environment, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=30)


def _wait_for_node(environment: dict[str, str], root: Path) -> None:
    for _ in range(60):
        seen = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
        if seen.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    raise RuntimeError((root / "controller.log").read_text() + (root / "node.log").read_text())


def _free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _path() -> str:
    """Return the search path with the folders of daemons, which an ordinary user's lacks."""
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"
