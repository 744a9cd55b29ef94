"""A language model's shape: what a token passes, and what it looks back at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Architecture", "Attention", "Block", "Linear", "Recurrence"]


class Linear(NamedTuple):
    """y = W · x (+ b); W (d_out, d_in). Of the experts' matrices `copies` are held and `used` are passed by a token."""

    d_in: int
    d_out: int
    bias: bool = False
    copies: int = 1
    used: int = 1

    @property
    def parameters(self) -> int:
        return self.copies * self._parameters_of_one

    @property
    def active_parameters(self) -> int:
        return self.used * self._parameters_of_one

    @property
    def flops_per_token(self) -> int:
        """A multiplication and an addition a weight; biases are not counted."""
        return 2 * self.used * self.d_in * self.d_out

    @property
    def routed(self) -> bool:
        return self.copies > 1

    @property
    def _parameters_of_one(self) -> int:
        return self.d_out * (self.d_in + self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """softmax(Q · Kᵀ) · V of one layer, without its projections.

    Q (heads, key_dim), K (context, heads, key_dim), V (context, heads, value_dim), grouped heads expanded.
    """

    heads: int
    key_dim: int
    value_dim: int
    cached_values: int
    """Numbers that a token leaves in this layer's cache."""
    window: int | None = None
    """A token attends to so many tokens at most, itself included."""
    latent: tuple[int, int] | None = None
    """Multi-head latent attention when it decodes: the dimensions of key and value on the shared latent."""

    @property
    def prefill_flops_per_pair(self) -> int:
        """For one query token and one token it attends to."""
        return 2 * self.heads * (self.key_dim + self.value_dim)

    @property
    def decode_flops_per_pair(self) -> int:
        """The same when decoding: latent attention multiplies with the cache as it lies, instead of expanding it.

        Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.2 (W_UK absorbed into W_Q, W_UV into W_O).
        """
        return 2 * self.heads * sum(self.latent) if self.latent else self.prefill_flops_per_pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """A selective state space of one layer, without its projections: a short convolution, then a scan."""

    conv_channels: int
    conv_kernel: int
    state_values: int
    """Numbers in the state: channels · d_state."""
    scan_flops_per_token: int

    @property
    def conv_flops_per_token(self) -> int:
        """Depthwise: 2 · channels · kernel."""
        return 2 * self.conv_channels * self.conv_kernel

    @property
    def flops_per_token(self) -> int:
        return self.conv_flops_per_token + self.scan_flops_per_token

    @property
    def cached_values(self) -> int:
        """Numbers that a sequence holds, however long: the state and the convolution's last inputs."""
        return self.state_values + self.conv_channels * (self.conv_kernel - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer of the stack."""

    linears: tuple[Linear, ...]
    attention: Attention | None = None
    recurrence: Recurrence | None = None
    other_parameters: int = 0
    """Norms, convolutions, sinks: all a token passes that is no matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Read from `config.json` by `families.py`."""

    family: str
    """`model_type` of the configuration."""
    hidden_size: int
    vocabulary: int
    blocks: tuple[Block, ...]
    embedding_parameters: int
    """Tables of which a token takes a row: token and position embeddings."""
    head: Linear
    """Hidden state → logits."""
    tied: bool
    """The head's weight is the token embedding."""
    other_parameters: int = 0
    """Norms outside the blocks."""

    @property
    def total_parameters(self) -> int:
        return self._outside_blocks + sum(
            block.other_parameters + sum(linear.parameters for linear in block.linears) for block in self.blocks
        )

    @property
    def active_parameters(self) -> int:
        """Those that one token uses: of the routed experts only its own; embeddings and head count whole."""
        return self._outside_blocks + sum(
            block.other_parameters + sum(linear.active_parameters for linear in block.linears) for block in self.blocks
        )

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that a token leaves in the KV cache, all layers together (within their windows)."""
        return sum(block.attention.cached_values for block in self.blocks if block.attention)

    @property
    def state_values_per_sequence(self) -> int:
        """Numbers that the recurrent layers hold for a sequence, however long it is."""
        return sum(block.recurrence.cached_values for block in self.blocks if block.recurrence)

    @property
    def experts(self) -> tuple[int, int] | None:
        """Routed experts a layer, and how many of them a token passes; None: there are none."""
        return next(((one.copies, one.used) for block in self.blocks for one in block.linears if one.routed), None)

    @property
    def _outside_blocks(self) -> int:
        head = self.head.d_out * self.head.bias if self.tied else self.head.parameters
        return self.embedding_parameters + head + self.other_parameters
