"""The paper's claims and a study's own questions: as data, as tests, as verdicts."""
