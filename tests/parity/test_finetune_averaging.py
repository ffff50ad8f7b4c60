"""Moving averages against torch's own `AveragedModel`."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from edgeft.finetune.averaging import MovingAverage


def test_averages_are_torchs() -> None:
    def decayed(average: torch.Tensor, weights: torch.Tensor, seen: torch.Tensor | int) -> torch.Tensor:
        step = int(seen) - 1
        return average + (1 - min(0.5, (1 + step) / (10 + step))) * (weights - average)

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).double()
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs leave it out
    module[0].requires_grad_(requires_grad=False)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    average, theirs = MovingAverage(module, 0.5), AveragedModel(module, avg_fn=decayed, use_buffers=True)
    average.enrol_()
    theirs.update_parameters(module)
    optimizer = torch.optim.SGD([each for each in module.parameters() if each.requires_grad], lr=0.1)
    for step in range(12):
        module(torch.randn(5, 3, 8, 8, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_(step)
        theirs.update_parameters(module)

    live = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with average.in_place():
        for name, tensor in theirs.module.state_dict().items():
            found = module.state_dict()[name]
            if torch.is_floating_point(tensor):
                torch.testing.assert_close(found, tensor, rtol=1e-12, atol=1e-14)
            assert torch.equal(found, start[name]) == name.startswith("0.")
    assert all(torch.equal(tensor, live[name]) for name, tensor in module.state_dict().items())


def test_without_a_decay_nothing_is_held() -> None:
    module = nn.Linear(2, 2)
    average = MovingAverage(module, None)
    average.enrol_()
    average.update_(0)
    assert not average.values
