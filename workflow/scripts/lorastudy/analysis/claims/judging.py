"""The table of the paper's claims: each with its words, its number, what was found, how that was decided, the verdict."""

from lorastudy.analysis.claims import catalogue, measuring, rows, stated, verdicts
from lorastudy.analysis.claims.evidence import Evidence
from lorastudy.study import paper


def table(results, directory=paper.DIRECTORY):
    """All claims of the paper as a data frame: the fields of ``rows.Row``, and ``p_holm`` over all claims that have a p.

    Args:
        results: ``summary.Results``.
        directory: where the paper's values and claims are.
    """
    study = Evidence(results, directory)
    found = [_row(claim, study) for claim in catalogue.load(directory)]
    verdict = {row.claim: row.verdict for row in found}
    against = {claim.id: claim.contradicts for claim in catalogue.load(directory)}
    frame = rows.framed(found)
    frame["contradicts"] = [", ".join(f"{name} ({verdict[name]})" for name in against[row.claim]) for row in found]
    return frame


def _row(claim, study):
    kind = claim.parts[0].kind
    if kind in stated.KINDS:
        return stated.KINDS[kind](claim, claim.parts[0], study)
    found = [
        study.measured(check, study.rows.get(measuring.key(claim, index), {}).get("accuracy"))
        for index, check in enumerate(measuring.of_claim(claim, study.planned))
    ]
    return rows.judged(stated.of_paper(claim, study), verdicts.decide(found), found, study)
