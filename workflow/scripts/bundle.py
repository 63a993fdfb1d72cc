"""Put a finished study into one archive for a reviewer: python workflow/scripts/bundle.py [DIRECTORY] [--texts]

Tables, figures and report are brought up to date first; nothing is trained for it. The archive is bundle.tar.gz in the
study's directory.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import watch
from lorastudy.jobs import logs
from lorastudy.presentation import bundle
from lorastudy.study import command, configuration
from lorastudy.study.errors import StudyError
from lorastudy.study.settings import REPOSITORY


def main(directory, configured, texts):
    """Returns the exit status.

    Args:
        directory: of the study.
        configured: ``configuration.Configuration``.
        texts: whether the data's texts are bundled too.

    Raises:
        BundleError: the study is not finished, or its texts are asked for and are not there.
    """
    study = watch.study_in(directory, configured)
    os.chdir(directory)
    bundle.require_finished(study)
    if status := up_to_date(configured):
        return status
    bundle.Bundle(study, configured, texts).write(bundle.NAME)
    size = Path(bundle.NAME).stat().st_size / 2**20
    print(f"{os.path.join(directory, bundle.NAME)}: {size:.1f} MiB, {'with' if texts else 'without'} texts")
    return 0


def up_to_date(configured):
    """Make the products that are missing or older than their results; Snakemake's exit status."""
    options = ["--directory", Path.cwd(), "--quiet", "all", *configured.arguments()]
    products = ["--", "figures/", "paper_tables/", bundle.REPORT]
    return subprocess.run([*command.SNAKEMAKE, *options, *products], check=False, cwd=REPOSITORY).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", default=".", help="the study (default: this directory)")
    parser.add_argument("--texts", action="store_true", help="the texts of the three splits too")
    configuration.add_options(parser)
    chosen = parser.parse_args()
    logs.any_terminal()
    try:
        configured = configuration.Configuration.of_options(chosen).or_last(chosen.directory)
        sys.exit(main(chosen.directory, configured, chosen.texts))
    except StudyError as fault:
        sys.exit(str(fault))
