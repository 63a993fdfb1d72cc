"""What a result was computed from."""

from lorastudy.inputs import base_model
from lorastudy.study import records


def of(base, card):
    """Fingerprint of the model; source, revision and fingerprint of the data, as a record's provenance has them.

    Args:
        base: model directory.
        card: data card.
    """
    written = records.read_json(card)
    return {
        "model": base_model.fingerprint(base),
        "data": {key: written.get(key) for key in ("source", "revision", "fingerprint")},
    }
