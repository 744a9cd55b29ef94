"""Makes variants of a checkpoint and adapters for it, says what each loses, and refuses what no engine serves.

    cli.py            the command line; imports nothing heavy, so that --help is instant
    commands/         one file a verb

The path of `wattgate quant run RECIPE.yaml`:

    recipe.py         the recipe, checked key by key; recipe_file.py knows the lines
    catalogue.py      every method of both tiers, and what a recipe may say of it
    run.py            plans all variants, then makes each once
    run_source.py     the source: a directory, or a model of the hub
    checkpoint.py     config.json, and the headers of the safetensors files
    cache.py          finished variants, by what they were made of
    rtn.py            which layers are rounded, which stay
    stream.py         read, convert, write: block by block, by several threads
    methods/          how one weight matrix becomes integers and scales, and back
    safetensors_file.py  a safetensors file that is written piece by piece
    whole_directory.py   an output directory that is whole or absent
    compressor/       the methods of llm-compressor, in their own environment; run_compressor.py starts it
    manifest.py       digests, tool versions, manifest.json
    run_costs.py, run_energy.py, run_progress.py   seconds, memory, joules; bars

What a variant loses:

    dequantize.py     a variant's weights in floating point again
    evaluate.py       held-out perplexity offline
    served.py         held-out perplexity of a running engine, over HTTP
    quality/          what a variant loses against its reference, with intervals
    report/           variants side by side: terminal, JSON, one HTML page

Adapters, and the rest:

    adapters/         inspect, convert, merge; tune/ trains small ones
    can_serve.py      can this engine serve it, by the rules of server/models
    errors.py         what can go wrong
    demo/             the demo model and its adapters, trained from the standard library's own text

To add a …              write                                    and add a line to
own quantization scheme methods/<name>.py (Protocol: method.py)  METHODS in methods/__init__.py, catalogue.py
llm-compressor method   compressor/recipes.py                    COMPRESSOR_METHODS in compressor/table.py
command                 commands/<name>.py                       COMMANDS in commands/__init__.py
demo adapter            a function Entry → answer                STYLES in demo/dialogues.py, TASKS in demo/adapters.py

Nothing here imports torch before a command needs it. Everything runs in the engine environment, but what needs
llm-compressor or PEFT: that runs in the quant environment.
"""
