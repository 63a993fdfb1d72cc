"""Before anything else: the library can be imported, and the configuration can be read."""

import os
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
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [SCRIPTS, os.environ.get("PYTHONPATH")])
)
# For the jobs, which start in the study's directory: modules of the user's that lie there are not imported.
os.environ["PYTHONSAFEPATH"] = "1"

from lorastudy.study import configuration

try:
    configuration.require_readable("config.yaml")
except configuration.ConfigError as fault:
    raise SystemExit(str(fault)) from None
