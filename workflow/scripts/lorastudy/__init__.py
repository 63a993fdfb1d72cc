"""Library of the study pipeline: what the rules' scripts do, one module a concept.

In the order in which data meets them: settings, grid, data, batching, model, attention, training, evaluation,
metrics, memory, records, tables, figures, paper, logs.
"""
