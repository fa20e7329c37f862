"""What a suite costs beside its stages: a simulation of 100 000 of them, and a plan on paper.

    python -m benchmarks.scale                      in a clone; all parts, to results/speed/
    python -m hashbackdoor_bench.benchmarks.scale   if the package is installed

``simulation``: a suite whose stages compute nothing (`stubs`) goes through the real suite file,
layout, schedule, executor, workers, cache and records of this machine. ``cluster``: a smaller one
goes through a Ray cluster of four nodes on this machine, in peace and while nodes are killed.
``scoring``: exact scores among 10^6 database items. ``plan``: what 10 000 runs on ImageNet-1k take,
computed from these measurements and from those of a GPU (`benchmarks.gpu`).
"""
