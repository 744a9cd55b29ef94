"""Makes variants of a checkpoint and measures what they lose.

The path of `python -m quant rtn SOURCE OUT --scheme w4a16`:

    cli.py            the command line; imports nothing heavy, so that --help is instant
    rtn.py            orders the work: read, round, write, tensor by tensor
    checkpoint.py     a source directory: config.json and the headers of its safetensors files
    methods/          how one weight matrix becomes integers and scales, and back
    safetensors_file.py  a safetensors file written as a stream
    whole_directory.py   an output directory that is whole or absent
    dequantize.py     a variant's weights in floating point again
    evaluate.py       held-out perplexity offline
    served.py         held-out perplexity of a running engine, over HTTP
    errors.py         what can go wrong
    demo/             the demo model and its adapters, trained from the standard library's own text

To add a …              write                                    and add a line to
quantization method     methods/<name>.py (Protocol: method.py)  METHODS in methods/__init__.py
demo adapter            a function Entry → answer                STYLES in demo/dialogues.py, TASKS in demo/adapters.py

Nothing here imports torch before a command needs it. Everything runs in the engine environment.
"""
