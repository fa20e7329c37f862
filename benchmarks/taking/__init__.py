"""Why a patch backdoor takes in one training and not in the next.

    bench suite run bistable
    python -m benchmarks.taking runs/bistable

The runs of the suite differ in their seed only, and yet some victims learn the patch and some
don't. The command trains these victims again, with the same weights to the last bit, and looks at
each of them after every epoch: at the loss of the poison, and at how far from the target's code the
poison and the triggered queries are. It prints which of what it sees goes with the gain of the run.
"""
