"""Programs that tests need beside Python's packages: Debian's, installed where that is allowed.

Where it is not, the tests are skipped with the reason; with ``CI`` set they fail, so that nothing goes untested unseen.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

POLICY = Path("/usr/sbin/policy-rc.d")  # Debian's switch that keeps packages from starting daemons of their own
CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # any of these will do


class CannotInstall(Exception):
    """Packages that are not there and may not be installed; the text says why."""


def require(packages, *commands):
    """Path of the first of ``commands`` that there is, once ``packages`` are installed if need be.

    Without commands the packages themselves have to be there.
    """
    found = next(filter(None, map(shutil.which, commands)), None)
    if found:
        return found
    try:
        install(packages)
    except CannotInstall as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))
    return next(filter(None, map(shutil.which, commands)), None)


def chromium():
    """Path of a Chromium; ``CHROMIUM`` in the environment names another one."""
    return os.environ.get("CHROMIUM") or require(["chromium-headless-shell"], *CHROMIUM)


def pdflatex():
    """Path of pdflatex, with the packages that the tables ask for."""
    return require(["texlive-latex-base", "texlive-latex-recommended"], "pdflatex")


def install(packages):
    """Install what is missing with apt.

    Raises:
        CannotInstall: not root, no apt, or apt fails.
    """
    missing = [name for name in packages if not _installed(name)]
    if not missing:
        return
    wanted = f"the tests need the Debian packages {', '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotInstall(f"{wanted}, and this user may not install them (root and apt-get are needed)")
    made = not POLICY.exists()
    if made:
        POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        POLICY.chmod(0o755)
    try:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", *command], capture_output=True, encoding="utf-8", check=False, env=environment
            )
            if done.returncode:
                raise CannotInstall(f"{wanted}, and apt-get {command[0]} failed: {done.stderr.strip()[-300:]}")
    finally:
        if made:
            POLICY.unlink()


def _installed(package):
    query = ["dpkg-query", "--show", "--showformat=${Status}", package]
    try:
        return "ok installed" in subprocess.run(query, capture_output=True, encoding="utf-8", check=False).stdout
    except OSError:
        return False
