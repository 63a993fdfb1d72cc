"""Pinned files out of the package index that pip is configured for."""

import subprocess
import sys
from pathlib import Path

PIP = [sys.executable, "-P", "-m", "pip"]  # no module that lies beside a study
QUIET = ["--quiet", "--disable-pip-version-check"]
TIMEOUT = 30  # seconds that the index may take to say which versions there are


def download(requirement, directory, *, source=False):
    """Path of the wheel, or of the source distribution, of a pinned requirement, fetched into ``directory``.

    Nothing is built and no dependency fetched.

    Raises:
        OSError: pip cannot have it; the text says why and what to check.
    """
    # without isolation, because it would only fetch the tools of a build that does not take place
    kind = ["--no-binary", ":all:", "--no-build-isolation"] if source else ["--only-binary", ":all:"]
    command = [*PIP, "download", *QUIET, "--no-deps", *kind, "--dest", str(directory), requirement]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", errors="replace")
    found = list(Path(directory).glob("*.tar.gz" if source else "*.whl"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = said[-1].strip() if said else "no such file came"
        raise OSError(f"{requirement} cannot be fetched with pip: {reason}. Is there a network on this machine?")
    return found[0]


def versions(name):
    """Versions of a package that the index has; None if it has none or could not be asked.

    Raises:
        subprocess.TimeoutExpired: it did not answer within ``TIMEOUT`` seconds.
    """
    command = [*PIP, "index", "versions", "--disable-pip-version-check", name]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=TIMEOUT
    )
    return None if done.returncode else done.stdout.replace(",", " ").split()
