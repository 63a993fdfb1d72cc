"""A finished study in one archive, from which its tables, figures and report are rebuilt elsewhere, bit for bit.

It holds what these are made of and nothing that was only needed on the way: no weights, no checkpoints, and texts only on
request. Where it is unpacked, ``layout.BUNDLE`` tells the workflow that nothing can be trained or fetched there.
"""

import gzip
import hashlib
import importlib.metadata
import io
import json
import platform
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from lorastudy.analysis import summary
from lorastudy.presentation import figures, report, tables
from lorastudy.study import configuration, grid, layout, records
from lorastudy.study.errors import StudyError

NAME = "bundle.tar.gz"
OF_RESULT = ("metrics.json", "training.json", "training_log.csv", "predictions.parquet")
SPLITS = ("train", "validation", "test")
PRODUCTS = "products.sha256"
REPORT = "report.html"
EPOCH = 315532800  # 1980, which every file system can hold; the archive has no times of its own
SHOWN = 3  # results that a refusal names

README = """\
# {name}

Configuration, records, predictions and environment of a finished study, without weights{texts}. Every table, every figure
and the report are rebuilt from them, without a GPU and without a network, in a clone of the pipeline ({commit}):

```
snakemake -d DIRECTORY figures/ paper_tables/ report.html
cd DIRECTORY && sha256sum --check {products}
```

where DIRECTORY is this one. `{products}` has the checksums of the files that the study itself had{report}. For the same bytes
the packages have to be the same: `environment.txt`, Python {python}.
"""
LEFT_OUT = ", and of its report with the sample texts left out, as they are here"


class BundleError(StudyError):
    """A study that cannot be bundled."""


@dataclass(frozen=True)
class Bundle:
    """What goes into an archive.

    Attributes:
        study: ``settings.Settings``.
        configured: ``configuration.Configuration``.
        texts: whether the splits go in too.
        directory: of the study.
    """

    study: object
    configured: configuration.Configuration
    texts: bool
    directory: Path = Path()

    def write(self, path):
        """Write the archive to ``path``, whole or not at all; the same study gives the same bytes.

        Raises:
            BundleError: texts are asked for and are not there.
        """
        top = re.sub(r"\W+", "-", self.study.study.name).strip("-").lower() or "study"
        written = self._written()
        with (
            records.replacing(path) as temporary,
            temporary.open("wb") as file,
            gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in sorted([*self._records(), *written]):
                content = written[name] if name in written else (self.directory / name).read_bytes()
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mtime = len(content), EPOCH
                archive.addfile(entry, io.BytesIO(content))

    def _records(self):
        """Paths in the study of the files that are taken as they are."""
        names = [layout.CARD, layout.PARAMETERS]
        for directory in _results(self.study, self.directory).values():
            names += [str(directory.relative_to(self.directory) / name) for name in OF_RESULT]
        splits = [f"results/data/{split}.parquet" for split in SPLITS] if self.texts else []
        if lost := [name for name in splits if not (self.directory / name).exists()]:
            raise BundleError(f"{lost[0]} is not there, so that texts cannot be bundled; leave them out (no TEXTS).")
        return [name for name in [*names, *splits] if (self.directory / name).exists()]

    def _written(self):
        """Name → content of the files that are made for the archive."""
        state = records.git_state()
        commit = f"commit {state['git_commit']}" if state["git_commit"] else "of the same version"
        said = README.format(
            name=self.study.study.name,
            texts="" if self.texts else " and without texts",
            commit=commit + (" with uncommitted changes" if state["git_dirty"] else ""),
            products=PRODUCTS,
            report="" if self.texts else LEFT_OUT,
            python=platform.python_version(),
        )
        manifest = {
            "study": self.study.study.name,
            "texts": self.texts,
            # that of the page, which says it and may have been written elsewhere
            "origin": report.origin_of((self.directory / REPORT).read_text(encoding="utf-8")).as_dict(),
            "pipeline": state | {"code": records.code_fingerprint()},
            "python": platform.python_version(),
        }
        texts = {
            "README.md": said,
            configuration.CONFIG: self._configuration(),
            "environment.txt": "".join(f"{line}\n" for line in environment()),
            PRODUCTS: "".join(f"{digest}  {name}\n" for name, digest in self._products().items()),
            layout.BUNDLE: json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
        }
        return {name: text.encode() for name, text in texts.items()}

    def _configuration(self):
        """The configuration in one file: the study's own, or what it is together with that of the command line."""
        if self.configured == configuration.Configuration():
            return (self.directory / configuration.CONFIG).read_text(encoding="utf-8")
        return yaml.safe_dump(self.configured.read(self.directory), sort_keys=False, allow_unicode=True)

    def _products(self):
        """Path → SHA-256 of every table and figure and of the report, as they are rebuilt from the archive."""
        found = {name: (self.directory / name).read_bytes() for name in products(self.study)}
        if not self.texts:
            found[REPORT] = report.without_texts(found[REPORT].decode()).encode()
        return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def products(study):
    """Paths of what is rebuilt from a bundle of the study (``settings.Settings``)."""
    made = [
        f"figures/{name}.{suffix}"
        for name in figures.names(study.grid, study.study.paper)
        for suffix in figures.FILES.values()
    ]
    made += [
        f"paper_tables/{name}.{suffix}"
        for name in tables.names(study.study.paper, study.grid.methods)
        for suffix in tables.FORMATS
    ]
    return [*made, "paper_tables/numbers.tex", REPORT]


def require_finished(study, directory="."):
    """Refuse to bundle a study of which something is still to be computed.

    Raises:
        BundleError: a cell or a baseline has no result, or one of another configuration.
    """
    cells = grid.cells(study.grid)
    specs = {name: study.cell_spec(cell) for name, cell in cells.items()}
    specs |= {name: study.baseline_spec() for name in summary.BASELINES}
    found = summary.build(cells, specs, directory)
    lost = found[found.status.isin(["missing", "stale"])]
    if len(lost):
        named = "; ".join(f"{row.id}: {row.reason}" for row in lost.head(SHOWN).itertuples())
        more = f"; and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise BundleError(
            f"{len(lost)} of {len(found)} results are still to come ({named}{more}). A bundle is of a finished study: "
            "run it first."
        )


def environment():
    """The installed packages, ``name==version`` each; this pipeline itself is a clone and no package."""
    found = {(one.name, one.version) for one in importlib.metadata.distributions() if one.name != "lorastudy"}
    return [f"{name}=={version}" for name, version in sorted(found, key=lambda pair: (pair[0].lower(), pair[1]))]


def _results(study, directory):
    """Id → directory of every cell and baseline of a study."""
    found = {name: layout.cell(name, directory) for name in grid.cells(study.grid)}
    return found | {name: layout.baseline(name, directory) for name in summary.BASELINES}
