"""One run of llm-compressor: a source checkpoint becomes a whole variant."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from llmcompressor import oneshot
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from quant.checkpoint import Checkpoint, is_linear
from quant.compressor.calibration import Calibration, read_calibration
from quant.compressor.options import CompressorOptions
from quant.compressor.recipes import RECIPES
from quant.compressor.table import COMPRESSOR_METHODS
from quant.errors import OutputError, SchemeError, SourceError
from quant.rtn import open_unquantized
from quant.stream import copied_files
from quant.whole_directory import whole_directory

__all__ = ["Outcome", "compress"]

_FLOATS: Final = frozenset({"BF16", "F16", "F32"})
_NVFP4_GROUP: Final = 16
_SEARCHES: Final = frozenset({"gptq", "awq"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the caller's manifest wants to know besides the folder."""

    calibration_sha256: str | None
    """None: the method looks at no text."""


def compress(name: str, source: Path, out: Path, options: CompressorOptions) -> Outcome:
    """Write the variant into `out`, which is whole or absent afterwards. Raises a `QuantError`.

    Memory: the whole model in its own type, and what the method holds of one block. Time: on a CPU, calibration's
    forward passes; seeded, so that equal inputs give equal weights on one machine.
    """
    if out.exists():  # whole_directory says the same, after minutes of work
        raise OutputError(f"{out} exists already. Remove it or choose another output directory.")
    checkpoint = open_unquantized(source)
    _check_source(checkpoint, name, options)
    torch.manual_seed(options.seed)
    with _refusals_of("load the source"):
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True)
    stored_as = model.dtype
    if _searches_in_float32(name, options):
        model.float()
    calibration = _calibration(name, checkpoint, options, tokenizer)
    with _refusals_of(f"carry out {name}"), _pageable_memory():
        oneshot(
            model=model,
            tokenizer=tokenizer,
            recipe=RECIPES[name](options),
            **({} if calibration is None else _calibrated(calibration)),
        )
    model.to(stored_as)
    with whole_directory(out) as folder:
        model.save_pretrained(folder, save_compressed=True)
        for file in copied_files(source):
            shutil.copyfile(file, folder / file.name)
    return Outcome(calibration_sha256=calibration.sha256 if calibration else None)


def _searches_in_float32(name: str, options: CompressorOptions) -> bool:
    """Whether to compute in float32 what is stored in 16 bits.

    Most CPUs multiply bf16 many times slower. Only where codes are chosen by a search and are few: the way back to 16
    bits moves a quotient of at most 8 by less than 0.07 (2 · 8 · 2⁻⁸), which never reaches the next of 4-bit codes.
    """
    return name in _SEARCHES and options.scheme == "w4a16" and not torch.accelerator.is_available()


def _calibrated(calibration: Calibration) -> dict[str, Any]:
    samples, length = calibration.windows.shape
    return {"dataset": calibration.loader(), "num_calibration_samples": samples, "max_seq_length": length}


def _calibration(
    name: str, checkpoint: Checkpoint, options: CompressorOptions, tokenizer: PreTrainedTokenizerBase
) -> Calibration | None:
    if not COMPRESSOR_METHODS[name].calibrated:
        return None
    longest = checkpoint.config.get("max_position_embeddings")
    if isinstance(longest, int) and options.length > longest:
        raise SchemeError(f"Samples of {options.length} tokens are longer than the model's {longest} positions.")

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    return read_calibration(options, encode, tokenizer.eos_token_id)


def _check_source(checkpoint: Checkpoint, name: str, options: CompressorOptions) -> None:
    group = _group_size(name, options)
    linear = 0
    for file, specs in checkpoint.files.items():
        for tensor_name, tensor in checkpoint.tensors(file):
            if not is_linear(tensor_name, specs[tensor_name]):
                continue
            linear += 1
            _check_weight(tensor_name, tensor, specs[tensor_name].dtype, group)
    if not linear:
        raise SourceError(f"{checkpoint.folder} has no linear layers known here (q_proj, … down_proj).")


def _check_weight(name: str, tensor: torch.Tensor, dtype: str, group: int | None) -> None:
    if dtype not in _FLOATS:
        raise SourceError(f"{name} is stored as {dtype}. Start from a bf16, fp16 or fp32 checkpoint.")
    if not bool(tensor.isfinite().all()):
        raise SourceError(f"{name} holds NaN or infinite values. The checkpoint is broken: copy or train it again.")
    inputs = tensor.shape[1]
    if group is not None and inputs % group:
        raise SchemeError(
            f"{name} cannot be quantized: its {inputs} inputs do not divide into groups of {group}. "
            "Choose a smaller `group_size`, or method smoothquant."
        )


def _group_size(name: str, options: CompressorOptions) -> int | None:
    if options.scheme == "nvfp4":
        return _NVFP4_GROUP
    return options.group_size if "group_size" in COMPRESSOR_METHODS[name].takes and options.scheme == "w4a16" else None


@contextlib.contextmanager
def _pageable_memory() -> Iterator[None]:
    """Without an accelerator nothing can be pinned, and llm-compressor 0.14's AWQ pins all the same and dies of it."""
    if torch.accelerator.is_available():
        yield
        return
    pin = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = _leave_where_it_is
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = pin


def _leave_where_it_is(cache: IntermediatesCache, batch_index: int, input_names: list[str] | None = None) -> None:
    """Stands in for `IntermediatesCache.pin_memory`."""


@contextlib.contextmanager
def _refusals_of(what: str) -> Iterator[None]:
    """The border to foreign code: what it raises about its input becomes one sentence."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, NotImplementedError, OSError) as exc:
        said = " ".join(str(exc).split())[:400].rstrip(".") or type(exc).__name__
        raise SourceError(
            f"llm-compressor (transformers {transformers.__version__}) could not {what}: {said}. "
            "Check that the source is a causal language model in the Hugging Face layout, with its tokenizer."
        ) from exc
