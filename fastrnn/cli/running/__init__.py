"""Whole recordings through a model: from a file or a stream, block by block, to a file or a stream.

    kinds       the kinds of files, by the endings of their names
    recording   what a model is to run on, checked and cut
    inputs      files to recordings
    table       .parquet files, by pyarrow
    blocks      a recording through a model, in blocks
    live        a stream of numbers through a model, as it comes
    journal     what is known of an output that is partly done
    draft       an output that is partly done, and the one run that owns it
    identity    whether a draft belongs to a command
    results     outputs as files of each kind, or on stdout
    run         one file to another, to be gone on with after an interruption
    pipes       stdin and stdout in the place of files
    several     several inputs: names, and one progress for all

Nothing here computes layers, and nothing prints: remarks and progress go to functions that callers give.
"""
