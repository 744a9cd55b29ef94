"""Trains a small adapter (or the model) on a JSONL file, and says what the training cost.

    settings.py   what a user may choose
    examples.py   JSONL → token ids, and which of them are learned
    methods.py    the ways of training; to add one: a function and a line in METHODS
    loop.py       the steps, deterministic by seed
    gauges.py     EfficientLLM's training metrics: AMU, PCU, AL, ST, AEC
    run.py        one training: its folder is whole or absent
    comparison.py several methods on the same examples, side by side
    demo_data.py  JSONL of the demo's tasks

Runs in the quant environment (PEFT).
"""
