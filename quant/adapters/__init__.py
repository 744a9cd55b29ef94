"""Adapters of every PEFT kind: served, converted to LoRA, merged into the base, or refused with the reason.

    inspection.py         what an adapter is, whether its files are sound and fit a base; which way it has to go
    conversion.py         convert: the change of the weights as a LoRA, and what that loses
    merging.py            merge: the base's checkpoint with the change in it
    factors.py            a weight change as B · A: by PEFT, or by singular values
    peft_model.py         base and adapter as one model, in PEFT
    losses.py             what is lost, in the weights and in the output
    table.py              what each kind of adapter needs on each variant
    quant_environment.py  runs a command in the environment that has PEFT

Which kind goes which way is a fact that the server needs, too: `server/models/adapter_kinds.py`. To add a kind: a line
there, and an adapter of it in `tests/quant/make_adapters.py`.
"""

from __future__ import annotations

from server.models.adapter_kinds import ADAPTER_KINDS as KINDS
from server.models.adapter_kinds import AdapterKind, Way

__all__ = ["KINDS", "AdapterKind", "Way"]
