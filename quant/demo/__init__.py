"""The demo model and its adapters, made from text that every Python has.

stdlib.py     the text: sources, docstrings, the language reference
dialogues.py  questions about it, with answers in prose, JSON or code
tokenizer.py  a byte-level BPE with a chat template
corpus.py     token streams; the held-out modules
shape.py      the model's shape
train.py      the base model, from nothing
lora.py       low-rank layers in plain torch, saved as PEFT saves them
adapters.py   the two adapters
cards.py      the model cards, from what was measured
"""
