"""Times of the performance-critical parts, against plain procedures, peer libraries and ceilings.

    python -m benchmarks.speed                      in a clone; all parts, to results/speed/
    python -m hashbackdoor_bench.benchmarks.speed   if the package is installed

Every part has one file. It makes its data once, checks that all contestants give the same result,
and times them alternately, A B A B, in one process on the same data. ``literal`` is the procedure
of the released code, written from its description; if it is slow, it runs on a sample that the row
names, and its time is scaled. ``peer`` is a well-maintained library. The ceiling of a part is the
speed of a bare loop on this machine that does only the unavoidable work.
"""
