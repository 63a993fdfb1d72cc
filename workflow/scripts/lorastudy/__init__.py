"""Library of the study pipeline: what the rules' scripts do. Each package imports only from those above it.

study         what a study is: settings, grid, the paper's values, records
statistics    scores, intervals, paired comparisons
inputs        texts and base models, obtained and prepared
jobs          what surrounds a computation: Slurm, leases, attempts, logs
planning      memory, resources, access and cost, before anything is computed
engine        fine-tuning and evaluation; the only package that imports torch
analysis      from records to answers
presentation  tables, figures, report, model cards
"""
