"""What the server of `warm` does before it forks: it loads kernels, and a network takes a step."""

import torch

from hashbackdoor_bench import HashLoss, HashModel
from hashbackdoor_bench.metrics import average_precision

CODES = torch.ones(2, 8)
for labels in (torch.eye(2), torch.ones(2, 2)):  # one tag, several: each has a kernel of its own
    for ties in ("expected", "seeded"):
        average_precision(CODES, labels, CODES, labels, 2, ties=ties)
model = HashModel("cnn32", 8, HashLoss, size=16)
model(torch.zeros(2, 3, 16, 16)).sum().backward()
torch.optim.SGD(model.parameters(), 0.1).step()
