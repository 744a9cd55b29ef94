"""Methods that llm-compressor carries out, in the quant environment.

    table.py         which methods there are and what each takes; torch-free
    options.py       what a user may choose, checked before anything heavy is loaded; torch-free
    environment.py   where the quant environment's Python is; torch-free
    recipes.py       what each method is in llm-compressor's words
    calibration.py   the text that methods look at, as windows of tokens
    compress.py      the run: source → whole output folder
    __main__.py      `python -m quant.compressor METHOD SOURCE OUT --options JSON`

llm-compressor pins other versions of compressed-tensors and transformers than vLLM, hence an environment of its own
(`make .venv-quant`); callers start it as a process and read one JSON line.

To add a method: a line in table.py and a function in recipes.py.
"""
