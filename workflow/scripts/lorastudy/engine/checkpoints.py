"""Checkpoints of a cell in training: whole or absent, recognised or refused, the last two kept where there is room.

They lie outside Snakemake's declared outputs, because Snakemake removes those when a job fails or is run again.
Tensors and everything else are in one safetensors file, so that a checkpoint has no halves.
"""

import json
import logging
import os
import shutil
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lorastudy.study import records

log = logging.getLogger("lorastudy")

KEPT = 2


class Checkpoints:
    """The checkpoints of one cell.

    Args:
        directory: where they are.
        identity: whatever must agree for a checkpoint to be this cell's (plain dictionary: settings, model, data).
    """

    def __init__(self, directory, identity):
        self.directory = Path(directory)
        self.identity = json.dumps(identity, sort_keys=True)

    def room(self, size):
        """Bytes that must still be free for this cell's checkpoints of ``size`` bytes: the newest, and one in writing."""
        return max(0, 2 * size - sum(path.stat().st_size for path in self._paths()))

    def save(self, step, tensors, state):
        """Write a checkpoint after ``step`` optimizer steps: ``tensors`` by name, ``state`` fit for JSON."""
        self.directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {
            "identity": self.identity,
            "state": json.dumps(state | {"step": step}),
            "checksum": str(_checksum(tensors)),
        }
        if shutil.disk_usage(self.directory).free < sum(tensor.nbytes for tensor in tensors.values()):
            for old in self._paths()[1:]:
                log.warning("no room for three checkpoints in %s: %s makes way for the next", self.directory, old.name)
                old.unlink()
        path = self.directory / f"step{step:08d}.safetensors"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            save_file(tensors, temporary, metadata)
            records.open_as_others(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in self._paths()[KEPT:]:
            old.unlink()

    def load(self, device="cpu"):
        """Tensors and state of the newest checkpoint that is whole and this cell's; None when there is none.

        A truncated, altered or foreign one is named in the log and passed over.
        """
        for path in self._paths():
            try:
                with safe_open(path, framework="pt", device=str(device)) as file:
                    metadata = file.metadata() or {}
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except (SafetensorError, OSError) as fault:
                log.warning("checkpoint %s refused: not readable (%s)", path, fault)
                continue
            if metadata.get("identity") != self.identity:
                log.warning("checkpoint %s refused: of another cell, configuration, model or data", path)
            elif metadata.get("checksum") != str(_checksum(tensors)):
                log.warning("checkpoint %s refused: its contents do not match their checksum", path)
            else:
                return tensors, json.loads(metadata["state"])
        return None

    def remove(self):
        """Remove them all: the cell is complete."""
        for path in self._paths():
            path.unlink()
        for path in self.directory.glob("*.tmp"):
            path.unlink()
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def _paths(self):
        return sorted(self.directory.glob("step*.safetensors"), reverse=True)


def _checksum(tensors):
    """CRC-32 over names and bytes: against damage, not against malice (nothing in a checkpoint is executed)."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(
            tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), zlib.crc32(name.encode(), value)
        )
    return value
