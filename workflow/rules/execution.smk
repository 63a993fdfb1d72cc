"""How jobs are sent off: what they ask for, what is checked before the first and told after the last."""

import atexit

from lorastudy.jobs import attempts, lease, slurm
from lorastudy.planning import resources


def of_profile(name):
    """A resource that the profile sets for training; None if it does not."""
    requested = (workflow.resource_settings.overwrite_resources or {}).get(
        "finetune_cell"
    )
    found = requested.get(name) if requested else None
    return getattr(found, "raw", found)


ESTIMATE = resources.Estimate(SETTINGS, CELLS, gpu=of_profile("gpu_model"))
STUDY_LEASE = lease.Lease("snakemake")
STARTED = attempts.now()


# `attempt` stands in each signature so that Snakemake asks again for every attempt.
def finetune_minutes(wildcards, attempt):
    return ESTIMATE.finetune_minutes(cell_of(wildcards).id)


def finetune_memory(wildcards, attempt):
    return ESTIMATE.finetune_memory_mb(cell_of(wildcards).id)


def finetune_gpu_memory(wildcards, attempt):
    return ESTIMATE.gpu_memory_mb(cell_of(wildcards).id, "finetune")


def evaluate_minutes(wildcards, attempt):
    return ESTIMATE.evaluate_minutes(cell_of(wildcards).id)


def evaluate_memory(wildcards, attempt):
    return ESTIMATE.evaluate_memory_mb(cell_of(wildcards).id)


def evaluate_gpu_memory(wildcards, attempt):
    return ESTIMATE.gpu_memory_mb(cell_of(wildcards).id, "evaluate")


def baseline_minutes(wildcards, attempt):
    return ESTIMATE.baseline_minutes(wildcards.baseline)


def baseline_memory(wildcards, attempt):
    return ESTIMATE.baseline_memory_mb(wildcards.baseline)


def base_gpu_memory(wildcards, attempt):
    return ESTIMATE.gpu_memory_mb(None, "evaluate")


def quantize_minutes(wildcards, attempt):
    return ESTIMATE.quantize_minutes()


def quantize_memory(wildcards, attempt):
    return ESTIMATE.quantize_memory_mb()


def before_slurm():
    """Make Slurm's answers reliable, and find at once what the cluster would never run."""
    slurm.use_commands()
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    if jobs:
        checked(slurm.check, [dict(job.resources.items()) for job in jobs])
    partition = slurm.partitions().get(of_profile("slurm_partition") or "")
    ESTIMATE.longest = partition.minutes if partition else None


def what_failed():
    """What the user has to know at the end of a run that did not complete; empty if no job says why."""
    lines = attempts.report(STARTED)
    advice = (
        "Mend the cause and run the same command again: what is finished stays, and cells go on from their last "
        "checkpoint."
    )
    return "\n  ".join(["\nNot finished:", *lines]) + f"\n{advice}" if lines else ""


onstart:
    if (
        not ONLY_PAPER
    ):  # tables and figures of what there is may be made while the study runs
        checked(STUDY_LEASE.acquire, False)
        atexit.register(STUDY_LEASE.release)
        CONFIGURED.remember()
        records.code_fingerprint()  # jobs inherit it
    if workflow.executor_plugin.name == "slurm":
        before_slurm()


onsuccess:
    STUDY_LEASE.release()


onerror:
    STUDY_LEASE.release()
    # registered for the very end, below what Snakemake says of each failed job and of itself
    if told := what_failed():
        atexit.register(print, told, file=sys.stderr)
