"""Trace files are read as their formats are, and a line that is wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planned import plan, prepared

from loadgen._errors import LoadError
from loadgen._prompts import Calibration
from loadgen._workloads import WORKLOADS, Workload

_AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,374,44
2023-11-16 18:17:04.0319600,396,109
2023-11-16 18:18:03.9799600,879,55
"""
_AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
_BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
45,GPT-4,417,276,693,API log
118,ChatGPT,1360,0,1360,Conversation log
"""
_MOONCAKE = """{"timestamp": 27000, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 30000, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47, 2353]}
{"timestamp": 30000, "input_length": 3000, "output_length": 11}
"""


def trace(folder: Path, text: str, *arguments: str, context: int | None = None) -> Workload:
    file = folder / "trace.file"
    file.write_text(text, encoding="utf-8")
    calibration = Calibration(fixed_tokens=5.0, tokens_a_word=2.0)
    return WORKLOADS["trace"](
        plan("--workload", "trace", "--workload-file", str(file), *arguments),
        prepared("a", calibration=calibration, context=context),
    )


def lengths(found: Workload, rows: int) -> list[tuple[int | None, int | None]]:
    return [(ask.prompt_tokens, ask.output_tokens) for ask in map(found.ask, range(rows))]


def test_azure_trace_gives_its_times_and_lengths(tmp_path: Path) -> None:
    found = trace(tmp_path, _AZURE)
    assert found.times_s == pytest.approx([0.0, 0.052, 60.0])
    assert lengths(found, 4) == [(374, 44), (396, 109), (879, 55), (374, 44)]
    assert found.describe()["format"] == "azure"
    assert trace(tmp_path, _AZURE_2024).times_s == pytest.approx([0.0, 0.007405], abs=1e-6)


def test_burstgpt_trace_is_spread_within_its_seconds_by_the_seed(tmp_path: Path) -> None:
    found = trace(tmp_path, _BURSTGPT)
    assert found.times_s is not None
    assert found.times_s[0] == 0
    assert np.all(np.diff(found.times_s) > 0)
    assert lengths(found, 4) == [(472, 18), (1087, 230), (417, 276), (1360, 1)]
    assert np.array_equal(found.times_s, trace(tmp_path, _BURSTGPT).times_s)  # type: ignore[arg-type]
    assert not np.array_equal(found.times_s, trace(tmp_path, _BURSTGPT, "--seed", "9").times_s)  # type: ignore[arg-type]


def test_mooncake_trace_shares_its_blocks(tmp_path: Path) -> None:
    found = trace(tmp_path, _MOONCAKE)
    assert lengths(found, 3) == [(6955, 52), (6472, 26), (3000, 11)]
    first, second, third = (found.ask(index).body["messages"][0]["content"].split() for index in range(3))
    assert first[:512] == second[:512]
    assert first[512:600] != second[512:600]
    assert third[:8] != first[:8]


def test_times_on_a_grid_without_twins_stay_as_they_are(tmp_path: Path) -> None:
    rows = "".join(f"{at},M,10,2,12,x\n" for at in (0, 2, 4, 8))
    found = trace(tmp_path, "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + rows)
    assert found.times_s == pytest.approx([0.0, 2.0, 4.0, 8.0])


def test_beginning_of_a_trace_can_be_taken(tmp_path: Path) -> None:
    found = trace(tmp_path, _BURSTGPT, "--workload-options", "rows=2")
    assert found.times_s == pytest.approx([0.0, 40.0])
    assert found.describe()["rows"] == 2


def test_long_trace_is_scaled_into_a_short_context(tmp_path: Path) -> None:
    found = trace(tmp_path, _MOONCAKE, context=512)
    assert all((prompt or 0) + (output or 0) <= 512 for prompt, output in lengths(found, 3))
    first, second = (found.ask(index).body["messages"][0]["content"].split() for index in range(2))
    shared = next(at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    # Two blocks of 512 tokens, scaled, at two tokens a word.
    assert shared == 2 * round(512 * found.describe()["scale"] / 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; --workload-file needs at least one line"),
        ("\n\n", "is empty"),
        ("a,b,c\n1,2,3\n", r"line 1 begins no trace of a known format \(azure, burstgpt, mooncake\)"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "has a header and no request"),
        (_AZURE.replace(",396,", ",many,"), "line 3 has 'many' as its ContextTokens"),
        (_AZURE.replace(",396,", ",-3,"), "line 3 has '-3' as its ContextTokens"),
        (_AZURE.replace(",396,", ","), "line 3 has 2 columns where the header has 3"),
        (_AZURE.replace("2023-11-16 18:18", "2023-11-16 18:16"), "line 4 is earlier than the line before it"),
        (_AZURE.replace("2023-11-16 18:18", "yesterday"), "line 4 has 'yesterday"),
        (_BURSTGPT.replace("118,", "nan,"), "line 5 has 'nan' as its Timestamp"),
        (_MOONCAKE.replace('"input_length": 6472', '"input_length": "x"'), "line 2 is no request of a Mooncake trace"),
        (_MOONCAKE + "{", "line 4 is no request of a Mooncake trace"),
    ],
)
def test_wrong_trace_is_refused_with_the_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(LoadError, match=says) as refused:
        trace(tmp_path, text)
    assert "trace.file" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"prompt": "a"}\nnot json\n', "line 2 is not JSON"),
        ('\n{"text": "a"}\n', 'line 2 must be an object with either "messages" or "prompt"'),
        ('{"prompt": "a", "messages": []}\n', "line 1 must be an object with either"),
        ('{"messages": [{"content": "a"}]}\n', 'line 1 has "messages" that are no list'),
        ('{"messages": []}\n', 'line 1 has "messages" that are no list'),
        ('{"prompt": "a", "max_tokens": 0}\n', 'line 1 has a "max_tokens" that is no number above 0'),
        ('{"prompt": "a", "stream": false}\n', 'line 1 has "stream", which the options of the load decide'),
        ("[]\n", "line 1 must be an object"),
        ("", "is empty"),
    ],
)
def test_wrong_jsonl_is_refused_with_the_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "asks.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LoadError, match=says):
        WORKLOADS["jsonl"](
            plan("--workload", "jsonl", "--workload-file", str(file)),
            prepared("a", calibration=Calibration(fixed_tokens=5.0, tokens_a_word=2.0)),
        )


def test_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for file, says in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "x", "not UTF-8"),
    ):
        if file.name == "x":
            file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(LoadError, match=says):
            WORKLOADS["trace"](
                plan("--workload", "trace", "--workload-file", str(file)),
                prepared("a", calibration=Calibration(fixed_tokens=5.0, tokens_a_word=2.0)),
            )
