"""Library of the study pipeline: what the rules' scripts do, one module a concept, in the order in which data meets them.

A study: settings, grid; the paper's values (paper) and what it leaves open (ledger).
Texts: sources (local files, the hub, packages), duplicates, data.
Model: model, attention, decoder, kernels, triton_kernels.
Training and evaluation: batching, training, checkpoints, parallel, energy, memory, evaluation, metrics.
Jobs, on a cluster or a workstation: jobs, logs, lease, attempts, outputs, devices, staging, slurm, resources.
Numbers: records, summary, points, paired, comparisons, tuning, ratios, claims, cost.
What people see: tables, macros, figures, report, report_graph, progress, check, publish.
"""
