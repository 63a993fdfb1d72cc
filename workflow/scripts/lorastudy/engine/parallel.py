"""A cell on several GPUs of a node: one process a GPU, each with its share of every optimizer step.

The processes hold the same weights. Each computes the gradient of its micro-batches, gradients are summed (NCCL on
GPUs, gloo on a CPU), and each makes the same update. So the trajectory is that of one process, up to the order in
which floating-point numbers are added.
"""

import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import distributed

from lorastudy.jobs import logs
from lorastudy.study.errors import StudyError

SCRIPTS = Path(__file__).resolve().parents[2]


class ParallelError(StudyError):
    """Processes of a cell that ended with a fault."""


def rank_and_size():
    """(number of this process, number of processes)."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def add(tensors):
    """Replace each tensor by its sum over the processes."""
    for tensor in tensors:
        distributed.all_reduce(tensor)


def largest(number, device):
    """The largest of the processes' numbers."""
    value = torch.tensor(number, device=device)
    distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
    return value.item()


def launch(script, arguments, processes):
    """Run ``main(**arguments)`` of a script in several processes, each with a GPU of its own if there are GPUs.

    Signals that ask for an end are passed on.

    Args:
        script: path of a Python file.
        arguments: keyword arguments that JSON can hold.

    Raises:
        logs.Interrupted: they were stopped by a signal.
        ParallelError: one failed, or there are fewer GPUs than processes.
    """
    devices = _devices(processes)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(arguments, file)
        file.flush()
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        common["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
        children = [
            subprocess.Popen(
                [sys.executable, "-P", "-m", "lorastudy.engine.parallel", str(script), file.name],
                env=os.environ | common | {"RANK": str(rank)} | device,
            )
            for rank, device in enumerate(devices)
        ]

        def pass_on(number, _frame):
            for child in children:
                child.send_signal(number)

        watched = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        before = {number: signal.signal(number, pass_on) for number in watched}
        try:
            codes = _wait(children)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if stopped := next((code for code in codes if code > 128), None):
        raise logs.Interrupted("stopped by a signal. Run the same command again to go on.", stopped - 128)
    if any(codes):
        raise ParallelError("a process of this cell failed; its message is in the log.")


def _devices(processes):
    """What each process sees of the GPUs, as environment variables."""
    if not torch.cuda.is_available():
        return [{}] * processes
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    visible = visible if visible != [""] else [str(index) for index in range(torch.cuda.device_count())]
    if len(visible) < processes:
        raise ParallelError(
            f"config: `execution.gpus_per_cell` is {processes}; this job sees {len(visible)} GPUs. Lower it, or ask for more."
        )
    return [{"CUDA_VISIBLE_DEVICES": device} for device in visible[:processes]]


def _wait(children):
    """Exit codes; when one fails the others, which would wait for it, are ended, and count as failed too."""
    ended = []
    while any(child.poll() is None for child in children):
        if any(child.poll() for child in children):
            time.sleep(5)  # those that were stopped by the same signal end by themselves
            for child in children:
                if child.poll() is None:
                    child.kill()
                    ended.append(child)
        time.sleep(0.1)
    codes = [child.returncode if child.returncode >= 0 else 128 - child.returncode for child in children]
    return [1 if child in ended else code for child, code in zip(children, codes)]


def _child(script, arguments):
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if rank_and_size()[0]:
        logging.getLogger("lorastudy").setLevel(logging.WARNING)
    specification = importlib.util.spec_from_file_location("script", script)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    try:
        module.main(**json.loads(Path(arguments).read_text(encoding="utf-8")))
    except logs.Interrupted as stop:
        print(stop, file=sys.stderr, flush=True)
        os._exit(stop.code)  # without waiting for processes that have ended already
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    _child(*sys.argv[1:])
