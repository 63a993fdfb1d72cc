"""The sections of docs/results/README.md, a module each, and the records in docs/results that they are made of."""
