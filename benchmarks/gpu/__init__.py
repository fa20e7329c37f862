"""All that a GPU can tell, in one command of at most 8 minutes, for a machine lent for short.

    python -m benchmarks.gpu                      in a clone, where the tests are
    python -m hashbackdoor_bench.benchmarks.gpu   if the package is installed

Parts, in order: the machine and its ceilings; the tests that need a GPU; the main job with an empty
and a full cache; training, crafting and encoding at 32 and 224 px against bare loops and the rate
of the matrix units; how many workers share the GPU best; and as much of ``ciba-table-fashion`` as
the time left allows. Each part is a process of its own, so one that fails or takes too long leaves
the others alone. The report is written after every part, to ``results/speed/<gpu>.json`` and
``.md``.
"""
