"""A real Slurm of one node or several on this machine, with pretended GPUs, started and stopped by the tests.

Debian's packages, no systemd, no cgroups unless asked for, everything under one directory. Several clusters can run side by side: each
has its own ports and is found by ``SLURM_CONF``.
"""

import getpass
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
ACCOUNTING_PACKAGES = ("slurmdbd", "mariadb-server-core", "mariadb-client-core")
CGROUPS = Path("/sys/fs/cgroup")


def may_use_cgroups():
    """Whether this user may make control groups of version 1 here, as in a virtual machine and few containers."""
    try:
        for controller in ("memory", "freezer"):
            group = CGROUPS / controller / f"lorastudy-{os.getpid()}"
            group.mkdir()
            group.rmdir()
    except OSError:
        return False
    return True


class Cluster:
    """One cluster: controller, nodes ``n1``, ``n2`` …, partitions ``cpu`` (default), ``gpu`` and
    ``urgent``, whose jobs preempt the others'.

    Args:
        directory: everything is written there.
        gpus: pretended A100s of each node.
        port: first of the hundred ports that may be used.
        accounting: with slurmdbd on a MariaDB, so that sacct works; account ``lab``.
        cgroups: jobs are in control groups of the kernel (version 1), which ends those that use too much memory; without
            them Slurm looks at their memory every five seconds.
        nodes: how many; each has its daemon, ``slurmd`` that of n1, ``slurmd.n2`` that of n2.
    """

    def __init__(self, directory, gpus=4, port=26800, accounting=False, nodes=1, cgroups=False):
        self.directory = Path(directory)
        self.gpus = gpus
        self.port = port
        self.accounting = accounting
        self.cgroups = cgroups
        self.daemons = {
            f"n{number}": "slurmd" if number == 1 else f"slurmd.n{number}" for number in range(1, nodes + 1)
        }
        self.host = socket.gethostname().split(".")[0]
        self.processes = {}
        self.environment = os.environ | {"SLURM_CONF": str(self.directory / "slurm.conf")}

    def start(self):
        for name in ("run", "log", "state", "dev", *(f"spool/{node}" for node in self.daemons)):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self._spawn("munged", "munged", "--foreground", "--force", *self._munge_options())
        self._wait("munge", (self.directory / "run" / "munge.sock").exists)
        if self.accounting:
            self._start_accounting()
        for daemon in ("slurmctld", *self.daemons.values()):
            self.start_daemon(daemon)
        self._wait("the node", self.idle)
        return self

    def start_daemon(self, name):
        program, _, node = name.partition(".")
        own = [] if name == "slurmctld" else ["-N", node or "n1"]
        self._spawn(name, program, "-D", "-f", str(self.directory / "slurm.conf"), *own)
        if name == "slurmctld":
            self._wait(name, lambda: "UP" in self.run("scontrol", "ping", check=False))

    def stop_daemon(self, name, number=signal.SIGTERM):
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill_node(self, node):
        """A node goes down: its daemon and all that runs on it end at once."""
        self.stop_daemon(self.daemons[node], signal.SIGKILL)
        of_node = {"SLURM_CONF": self.environment["SLURM_CONF"], "SLURMD_NODENAME": node}
        lost = set()
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if of_node.items() <= one.environ().items():
                    lost |= {one, *(above for above in one.parents() if above.name().startswith("slurmstepd"))}
        for one in lost:
            with suppress(psutil.Error):
                one.kill()

    def stop(self):
        """Cancel what runs, then stop every daemon; nothing of the cluster is left running."""
        if "slurmctld" in self.processes:
            self.run("scancel", f"--user={getpass.getuser()}", check=False)
            end = time.monotonic() + 20
            while time.monotonic() < end and self.run("squeue", "-h", check=False).strip():
                time.sleep(0.3)
        for name in (*self.daemons.values(), "slurmctld", "slurmdbd", "mariadbd", "munged"):
            if name in self.processes:
                self.stop_daemon(name)
        self._end_strays()

    def run(self, *command, check=True):
        """Standard output of one of Slurm's commands."""
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", check=False, env=self.environment, timeout=60
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def idle(self):
        """Whether every node takes jobs."""
        states = set(self.run("sinfo", "-h", "-o", "%t", check=False).split())
        return bool(states) and states <= {"idle", "mix"}

    def jobs(self, directory, comment=""):
        """Jobs of a study, oldest first: dictionaries of what ``scontrol show job`` says."""
        text = self.run("scontrol", "show", "job", "-o", check=False)
        rows = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in text.splitlines()]
        rows = [row for row in rows if row.get("WorkDir") == str(directory) and comment in row.get("Comment", "")]
        return sorted(rows, key=lambda row: int(row["JobId"]))

    def _munge_options(self):
        run, log = self.directory / "run", self.directory / "log"
        key = self.directory / "munge.key"
        if not key.exists():
            key.write_bytes(os.urandom(128))
            key.chmod(0o400)
        return (
            f"--key-file={key}", f"--socket={run}/munge.sock", f"--pid-file={run}/munged.pid",
            f"--log-file={log}/munged.log", f"--seed-file={run}/munged.seed",
        )  # fmt: skip

    def _write_configuration(self):
        there = self.directory
        self.directory.chmod(0o755)
        loopback = socket.gethostbyname(self.host).startswith("127.")
        user = getpass.getuser()
        settings = {
            "ClusterName": "tests",
            "SlurmctldHost": f"{self.host}(127.0.0.1)",
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={there}/run/munge.sock",
            "SlurmctldPort": self.port,
            "SlurmctldPidFile": there / "run/slurmctld.pid",
            "SlurmdPidFile": there / "run/slurmd.%n.pid",
            "SlurmctldLogFile": there / "log/slurmctld.log",
            "SlurmdLogFile": there / "log/slurmd.%n.log",
            "StateSaveLocation": there / "state",
            "SlurmdSpoolDir": there / "spool/%n",
            "ProctrackType": "proctrack/" + ("cgroup" if self.cgroups else "linuxproc"),
            "TaskPlugin": "task/" + ("cgroup" if self.cgroups else "none"),
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=5",
            "JobAcctGatherParams": "NoOverMemoryKill" if self.cgroups else "OverMemoryKill",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "PropagateResourceLimits": "NONE",
            # more than the machine has
            "SlurmdParameters": "config_overrides",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "GresTypes": "gpu",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "bf_interval=5,sched_interval=5,batch_sched_delay=0",
            "EnforcePartLimits": "ALL",
            "MinJobAge": 3600,
            "KillWait": 10,
            "SlurmctldTimeout": 30,
            "SlurmdTimeout": 60,
            "MessageTimeout": 10,
            "ReturnToService": 2,
            "JobRequeue": 1,
            # jobs of the partition `urgent` push the others aside
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "AccountingStorageType": "accounting_storage/" + ("slurmdbd" if self.accounting else "none"),
        }
        if loopback:  # listen there alone; Slurm binds to what the machine's name resolves to
            settings["CommunicationParameters"] = "NoCtldInAddrAny,NoInAddrAny"
        if self.accounting:
            settings |= {
                "AccountingStorageHost": "127.0.0.1",
                "AccountingStoragePort": self.port + 2,
                "AccountingStoragePass": there / "run/munge.sock",
                "AccountingStorageTRES": "gres/gpu",
            }
        gpus = f" Gres=gpu:a100:{self.gpus}" if self.gpus else ""
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines += [
            f"NodeName={node} NodeHostname={self.host} NodeAddr=127.0.0.1 Port={self.port + port} "
            f"Sockets=1 CoresPerSocket=64 ThreadsPerCore=1 RealMemory=256000{gpus}"
            for node, port in zip(self.daemons, (1, 4, 5, 6))  # the database has those between
        ]
        lines += [
            "PartitionName=cpu Nodes=ALL Default=YES DefaultTime=60 MaxTime=1-0 State=UP",
            "PartitionName=gpu Nodes=ALL DefaultTime=60 MaxTime=1-0 State=UP",
            "PartitionName=urgent Nodes=ALL DefaultTime=60 MaxTime=1-0 State=UP PriorityTier=9",
        ]
        (there / "slurm.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if self.cgroups:
            rules = {
                "CgroupMountpoint": CGROUPS,
                "CgroupAutomount": "no",
                "CgroupPlugin": "cgroup/v1",
                "ConstrainRAMSpace": "yes",
            }
            text = "\n".join(f"{key}={value}" for key, value in rules.items())
            (there / "cgroup.conf").write_text(f"{text}\n", encoding="utf-8")
        devices = []
        for index in range(self.gpus):  # copies of /dev/null: with device files, jobs are told which GPU is theirs
            device = there / "dev" / f"gpu{index}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))
            devices += [f"NodeName={node} Name=gpu Type=a100 File={device}" for node in self.daemons]
        (there / "gres.conf").write_text("\n".join(devices) + "\n", encoding="utf-8")
        if self.accounting:
            path = there / "slurmdbd.conf"
            path.write_text(
                f"AuthType=auth/munge\nAuthInfo=socket={there}/run/munge.sock\nDbdHost={self.host}\nDbdAddr=127.0.0.1\n"
                f"DbdPort={self.port + 2}\nSlurmUser={user}\nPidFile={there}/run/slurmdbd.pid\n"
                f"LogFile={there}/log/slurmdbd.log\nStorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
                f"StoragePort={self.port + 3}\nStorageUser=slurm\nStoragePass=slurm\nStorageLoc=slurm_acct\n"
                + ("CommunicationParameters=NoInAddrAny\n" if loopback else ""),
                encoding="utf-8",
            )
            path.chmod(0o600)

    def _start_accounting(self):
        there = self.directory
        setup = there / "database.sql"
        setup.write_text(
            "CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'slurm';\n"
            "GRANT ALL ON slurm_acct.* TO slurm@localhost;\n",
            encoding="utf-8",
        )
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={there}/db", f"--user={getpass.getuser()}",
             "--skip-test-db", "--auth-root-authentication-method=normal"],
            check=True, capture_output=True,
        )  # fmt: skip
        port = str(self.port + 3)
        self._spawn(
            "mariadbd", "mariadbd", "--no-defaults", f"--user={getpass.getuser()}", f"--datadir={there}/db",
            f"--socket={there}/run/db.sock", f"--pid-file={there}/run/mariadbd.pid", "--bind-address=127.0.0.1",
            f"--port={port}", f"--init-file={setup}", "--innodb-buffer-pool-size=128M", "--innodb-lock-wait-timeout=900",
        )  # fmt: skip
        client = ["mariadb", "--no-defaults", "-uslurm", "-pslurm", "-h127.0.0.1", f"-P{port}", "-e", "select 1"]
        self._wait("the database", lambda: subprocess.run(client, capture_output=True, check=False).returncode == 0)
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._wait("slurmdbd", lambda: subprocess.run(
            ["sacctmgr", "-n", "show", "cluster"], capture_output=True, check=False, env=self.environment
        ).returncode == 0)  # fmt: skip
        for what in ("cluster tests", "account lab Cluster=tests", f"user {getpass.getuser()} Account=lab"):
            self.run("sacctmgr", "-i", "add", *what.split(), check=False)

    def _spawn(self, name, *command):
        with (self.directory / "log" / f"{name}.out").open("a", encoding="utf-8") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.directory
            )

    def _wait(self, what, there, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if there():
                return
            time.sleep(0.1)
        logs = "\n".join(
            path.read_text(errors="replace", encoding="utf-8")[-1500:] for path in (self.directory / "log").iterdir()
        )
        raise AssertionError(f"{what} not there after {seconds} s\n{logs}")

    def _end_strays(self):
        """Job steps whose daemon was killed live on: end every process that was started with this configuration."""
        wanted = f"SLURM_CONF={self.directory}/slurm.conf".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    ours = wanted in (entry / "environ").read_bytes().split(b"\0")
                    if ours or str(self.directory).encode() in (entry / "cmdline").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue
