"""JAX: a layer of zfcore's kernels inside jit and grad, and its pooling undone.

    pip install 'zfcore[jax]'
    python examples/python/jax_operators.py
"""

import jax
import numpy as np

from zfcore.interop.jax import convolution, max_pool, max_unpool, response_norm

generator = np.random.default_rng(0)
images = generator.random((2, 31, 31, 3), np.float32)  # (N, H, W, C)
filters = generator.normal(0, 0.1, (8, 5, 5, 3)).astype(np.float32)  # (K, R, S, C)


@jax.jit
def features(filters, images):
    maps = jax.nn.relu(convolution(images, filters, stride=2, padding=1))
    return max_pool(response_norm(maps, size=5), window=3, stride=2)


pooled, switches = features(filters, images)
print("pooled:", pooled.shape, "switches:", switches.dtype)

slope = jax.jit(jax.grad(lambda filters: (features(filters, images)[0] ** 2).sum()))(filters)
step = filters - 0.01 * slope
print("a step down the gradient lowers the sum:",
      bool((features(step, images)[0] ** 2).sum() < (pooled**2).sum()))

back = jax.jit(lambda y, s: max_unpool(y, s, (2, 15, 15, 8), window=3, stride=2))(pooled, switches)
print("all values are back:", bool(np.allclose(back.sum(), pooled.sum(), rtol=1e-5)))
