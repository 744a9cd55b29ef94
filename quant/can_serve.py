"""Can this device serve this checkpoint, with this adapter? Before an engine is started, and torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.errors import IncompatibleError
from server.models import AdapterCard, Checkpoint, DeviceFacts, check_adapter, check_checkpoint
from server.models.device import DEVICES

__all__ = ["LARGEST_RANK", "Question", "Verdict", "devices_that_can", "judge"]

LARGEST_RANK: Final = 512
"""The largest `--max-lora-rank` that vLLM takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be served."""

    checkpoint: Checkpoint
    adapter: AdapterCard | None = None
    dtype: str | None = None
    """The engine's option; None: the checkpoint's own."""
    max_rank: int = LARGEST_RANK


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Yes, or no with the rule that says so."""

    rule: str | None
    """None: yes, as far as the rules know."""
    because: str | None
    instead: str | None

    @property
    def served(self) -> bool:
        return self.rule is None


def judge(question: Question, device: DeviceFacts) -> Verdict:
    """The first broken rule, the checkpoint's before the adapter's. Reads no file."""
    try:
        _check(question, device)
    except IncompatibleError as exc:
        because = str(exc).removesuffix(f" Instead: {exc.instead}")
        return Verdict(rule=exc.rule, because=because, instead=exc.instead)
    return Verdict(rule=None, because=None, instead=None)


def devices_that_can(question: Question) -> tuple[str, ...]:
    """The names of all devices that no rule speaks against."""
    return tuple(name for name, device in DEVICES.items() if judge(question, device).served)


def _check(question: Question, device: DeviceFacts) -> None:
    check_checkpoint(question.checkpoint, device, dtype=question.dtype, adapters=question.adapter is not None)
    if question.adapter is not None:
        check_adapter(question.adapter, question.checkpoint, max_rank=question.max_rank, device=device)
