"""What surrounds a computation: Slurm, leases, attempts, GPUs that are shared, logs, finished outputs."""
