"""The project's own benchmark: ``python -m bench``.

It measures how fast fastrnn is next to the engines that a user would otherwise pick, judges the result by
targets that are declared beforehand, and compares results and builds. How a work is timed is in
`fastrnn.benchmark`, which users have too; nothing in the library imports this package.

The modules, in the order in which to read them:

    cases           the grid of cases, their targets, and the limits that the machine sets them
    probe           the limits of the machine, measured by probe.c and probe_narrow.c
    narrow          the grids of narrow precisions, and what limits them
    pools           what pools are compared with
    startup         cold start and installed size
    run             a whole run, and how its result is judged
    programs        whole models, declared in models, next to other engines
    report          a result as tables
    plot            a result as pictures
    compare         two results: what became slower
    builds          two builds in turns: what became slower; builds_worker is the process of each
    bits            two builds: which outputs have other bits
"""
