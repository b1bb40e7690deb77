"""PyTorch: AlexNet's first stage with zfcore's pooling and normalisation, compiled, and its strongest unit undone.

    pip install 'zfcore[torch]'
    python examples/python/torch_modules.py

torch's own unpooling needs int64 indices, in one layout, and is undefined on GPUs where windows overlap; here
switches are one byte, and the result is the same on every device.
"""

import torch
from torch import nn

from zfcore.interop.torch import LocalResponseNorm, MaxPool2d, MaxUnpool2d, replace

torch.manual_seed(0)
images = torch.rand(2, 3, 67, 67).contiguous(memory_format=torch.channels_last)

# 1. In the place of torch's modules, in a model that exists already.
model = nn.Sequential(nn.Conv2d(3, 16, 11, stride=4), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
                      nn.Flatten(), nn.Linear(16 * 7 * 7, 10))
before = model(images)
print("modules replaced:", replace(model))
after = model(images)
print("the same outputs:", torch.allclose(before, after, atol=1e-6))

# 2. Compiled, forward and backward: the operators have shape functions and gradients.
compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
compiled(images).square().sum().backward()
print("gradient of the filters:", tuple(model[0].weight.grad.shape))

# 3. Pooling and back: every value returns to its place, shared places add up (the deconvnet's unpooling).
stage = nn.Sequential(model[0], nn.ReLU(), LocalResponseNorm(5))
maps = stage(images).detach()
pooled, switches = MaxPool2d(3, 2, return_indices=True)(maps)
back = MaxUnpool2d(3, 2)(pooled, switches, output_size=maps.shape)
print("switches:", switches.dtype, tuple(switches.shape), "of windows that overlap")
print("all values are back:", torch.allclose(back.sum(), pooled.sum()))
