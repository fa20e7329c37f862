"""How fast every hot part is, against the literal procedure, a peer library and the machine.

    python -m benchmarks.speed                      in a clone; all parts, to results/speed/
    python -m hashbackdoor_bench.benchmarks.speed   where the package is installed

A file a part. Each makes its data once, checks that all contestants give the same result, and times
them in turn, A B A B, in one process on the same data. ``literal`` is the procedure of the
reference codes, written from its description; where it takes long it runs on a sample, which the
row names, and is scaled. ``peer`` is a well-kept library. The ceiling of a part is what this
machine needs for the least that the part must do, measured beside it by a bare loop.
"""
