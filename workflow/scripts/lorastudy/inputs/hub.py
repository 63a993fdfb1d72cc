"""What the Hugging Face hub's refusals mean, told once for models and data sets, fetched or only asked for.

The hub's own words are left out of every message: they may carry addresses or tokens.
"""

from dataclasses import dataclass

from huggingface_hub import errors

from lorastudy.study.errors import is_disk_full

LOGIN = "log in with `hf auth login` or set HF_TOKEN"
ELSE = {
    "model": "put the model's files in a directory and set `model.source: directory`",
    "data": "save it as files and set `data.source: files`",
}


@dataclass(frozen=True)
class Refusal:
    """Why the hub did not give what was asked for.

    Attributes:
        text: what is wrong and what to do, in one or two lines.
        final: the hub has decided; otherwise it was not reached, and nothing is known.
        disk_full: it was this machine's disk that refused.
    """

    text: str
    final: bool
    disk_full: bool = False


def refusal(fault, block, what):
    """The ``Refusal`` that an exception of huggingface_hub stands for.

    Args:
        block: ``settings.Model`` or ``settings.Data``, for name and revision.
        what: ``model`` or ``data``, the block's key.
    """
    called = f"`{what}.name` {block.name!r}"
    status = getattr(getattr(fault, "response", None), "status_code", None)
    if is_disk_full(fault):
        text = f"no room on the disk for {called}; make room, or set HF_HOME to a directory on another disk."
        return Refusal(text, final=True, disk_full=True)
    if isinstance(fault, errors.GatedRepoError):
        return Refusal(f"{called} is gated: accept its terms on its page on the hub, then {LOGIN}.", final=True)
    if isinstance(fault, errors.RevisionNotFoundError):
        text = f"`{what}.revision` {block.revision} does not exist in {block.name}; take a commit from its history."
        return Refusal(text, final=True)
    if isinstance(fault, (errors.RepositoryNotFoundError, errors.HFValidationError)) or status in (401, 403, 404):
        text = f"{called} is not on the hub, or is private and HF_TOKEN is not set; correct it or {LOGIN}."
        return Refusal(text, final=True)
    if isinstance(fault, errors.OfflineModeIsEnabled):
        return Refusal(f"{called}: HF_HUB_OFFLINE is set, so that the hub was not asked.", final=False)
    reason = f"the hub answered with status {status}" if status else f"the hub was not reached ({type(fault).__name__})"
    return Refusal(
        f"{called} cannot be fetched: {reason}. Is there a network on this machine? Else {ELSE[what]}.", final=False
    )
