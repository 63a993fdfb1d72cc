"""Before anything else: the library can be imported, and the configuration can be read."""

import os
import shlex
import sys
from pathlib import Path

if workflow.modifier.namespace is not None or not Path(str(workflow.basedir)).is_dir():
    raise SystemExit(
        "this workflow is run from a clone of it and not as a module or from an address: git clone it, "
        "then in the clone: snakemake -d DIRECTORY, where DIRECTORY is the one of your config.yaml."
    )

# This clone's library, whatever the environment has installed; jobs inherit it.
SCRIPTS = str(Path(workflow.basedir) / "workflow" / "scripts")
sys.path.insert(0, SCRIPTS)

from lorastudy.jobs import logs
from lorastudy.study import command, configuration

# Snakemake writes it into commands as it is, so that an environment in a place with a space would not be found.
if Path(sys.executable).exists():  # and not quoted before
    sys.executable = shlex.quote(sys.executable)
logs.any_terminal()
command.hand_on(SCRIPTS)
command.name_the_user()

try:
    configuration.require_readable("config.yaml")
except configuration.ConfigError as fault:
    raise SystemExit(str(fault)) from None
