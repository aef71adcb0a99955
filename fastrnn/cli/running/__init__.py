"""What ``fastrnn run`` does: a model over whole recordings, from files or stdin to files or stdout.

A recording may be larger than memory, so it is read, run and written in pieces. A run from a file to a file
that is interrupted can go on later: what is done waits in a draft next to the output. Layers are not
computed here but by the model, and nothing here prints: remarks and progress go to functions that the
callers pass in.

The modules, in the order in which to read them:

    kinds           the kinds of files, told by the extensions of their names
    recording       what a model is to run on: an array, lengths and an initial state, checked
    inputs          files to recordings
    table           .parquet files, by pyarrow
    pieces          a recording in pieces, and what comes out of each
    journal         how far an unfinished output is, as a file
    draft           an unfinished output, and the one run that owns it
    identity        whether a draft belongs to a command
    results         outputs as files of each kind
    task            a model, an input and an output; what a run reports
    file_to_file    a run from a file to a file, which can go on after an interruption
    input_stream    numbers from stdin, and a model that runs over them as they come
    output_stream   numbers to stdout
    pipes           runs with stdin or stdout in place of a file
    several_inputs  the names of several outputs, and one progress display for all
"""
