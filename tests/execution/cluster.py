"""A Slurm of two nodes on this machine, without accounting, as long as a test needs it."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

_COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
# A requeued job waits for as long as a credential is valid: cred_expire.
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=10
SchedulerParameters=sched_interval=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here; "" where it can."""
    lacking = [name for name in _COMMANDS if shutil.which(name, path=_PATH) is None]
    if lacking:
        return f"no Slurm here, {', '.join(lacking)} missing: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


class Cluster:
    """The daemons, in the foreground of processes of ours."""

    def __init__(self, folder: Path) -> None:
        """`folder`: with a short name, for its socket."""
        self.folder = folder
        sockets = [socket.socket() for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        host = platform.node().partition(".")[0]
        self.file = folder / "slurm.conf"
        self.file.write_text(_CONFIGURATION.format(host=host, folder=folder, ports=ports))
        for name in ("state", "n1", "n2"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        self.variables = {"SLURM_CONF": str(self.file), "PATH": _PATH}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts them, until both nodes are idle."""
        munge = [f"--{name}={self.folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "socket"))]
        munge += [f"--{name}={self.folder}/munge.{end}" for name, end in (("pid-file", "pid"), ("log-file", "log"))]
        self._run("munged", "--foreground", "--force", f"--seed-file={self.folder}/munge.seed", *munge)
        while not (self.folder / "munge.socket").exists():
            assert self._daemons[0].poll() is None, "munged did not start"
            time.sleep(0.05)
        self._run("slurmctld", "-D", "-i")
        self._run("slurmd", "-D", "-N", "n1")
        self._run("slurmd", "-D", "-N", "n2")
        deadline = time.monotonic() + 60
        while self.ask("sinfo", "--noheader", "--format=%T %D") != "idle 2":
            assert time.monotonic() < deadline, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)

    def _run(self, *words: str) -> None:
        self._daemons.append(
            subprocess.Popen(
                words,
                env={**os.environ, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def ask(self, *words: str) -> str:
        """What a command of Slurm answers."""
        env = {**os.environ, **self.variables}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False).stdout.strip()

    def states(self) -> dict[str, str]:
        """How each job stands, by its number."""
        lines = self.ask("squeue", "--noheader", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def stop(self) -> None:
        """Cancels the jobs and ends the daemons."""
        self.ask("scancel", "--user=root")
        deadline = time.monotonic() + 15
        while self.ask("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
