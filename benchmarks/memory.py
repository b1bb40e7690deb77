"""Peak memory of a training step, a forward pass and a scan: each in a fresh process, ours and PyTorch's.

Also the first call: how long a fresh installation compiles until the demo's network has been trained a step
and projected from. `python -m benchmarks.memory TASK` runs one task and prints its numbers as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .measure import OURS, Row

UNIT = "MB above the process after its imports and parameters"


def _resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours_step() -> Callable[[], Any]:
    import numpy as np

    from zfcore import models
    from zfcore.training import SGD, train_step

    net = models.zfnet().initialize(0, "he")
    x = np.random.default_rng(0).standard_normal((16, 224, 224, 3), dtype=np.float32)
    labels, optimizer = np.zeros(16, np.int64), SGD(learning_rate=1e-4, momentum=0.9)
    return lambda: [train_step(net, x, labels, optimizer) for _ in range(3)]


def torch_step() -> Callable[[], Any]:
    import torch

    from zfcore import models

    from .torch_networks import in_layout, training_step, twin

    torch.set_num_threads(2)
    model = in_layout(twin(models.zfnet().initialize(0, "he")), "torch channels_last")
    image = torch.randn(16, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    step = training_step(model, image, torch.zeros(16, dtype=torch.int64))
    return lambda: [step() for _ in range(3)]


def ours_scan(read: bool = False) -> Callable[[], Any]:
    """A scan of 100 photographs; `read`: and then all patches, which are cut only when they are read."""
    import zfcore

    from .networks import photographs

    folder = tempfile.mkdtemp()
    photographs(Path(folder), 100)
    net = zfcore.models.alexnet().initialize(0, "he")
    names = [f"conv{number}" for number in range(1, 6)]

    def run() -> Any:
        atlas = zfcore.atlas(net, folder, names, batch_size=20, progress=False)
        return atlas, [part.patches for part in atlas.layers.values()] if read else None
    return run


def torch_scan(read: bool = False) -> Callable[[], Any]:
    """The same maxima in PyTorch by five hooks, on noise; and the memory of the images, or of all patches."""
    import numpy as np
    import torch

    from zfcore import models
    from zfcore.study.scan import forecast

    from .torch_networks import in_layout, twin

    torch.set_num_threads(2)
    net = models.alexnet().initialize(0, "he")
    model = in_layout(twin(net), "torch channels_last").eval()
    kept: dict[int, Any] = {}
    last = 0
    for place, module in enumerate(model):
        if isinstance(module, torch.nn.Conv2d):
            last = place + 2
            model[place + 1].register_forward_hook(
                lambda _, __, y, place=place: kept.update({place: y.flatten(2).max(2)}))
    model = model[:last]

    def run() -> None:
        expected = forecast(net, [f"conv{number}" for number in range(1, 6)], 100)
        pixels = np.ones(expected.patch_bytes if read else expected.image_bytes, np.uint8)
        images = torch.randn(20, 3, 227, 227).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            for _ in range(5):
                model(images)
        del pixels
    return run


def first_call() -> Callable[[], Any]:
    """Forward, backward, update and projection of ZFNet, kernels compiled afresh."""
    import numpy as np

    from zfcore import models
    from zfcore.training import SGD, train_step

    net = models.zfnet().initialize(0, "he")
    x = np.random.default_rng(0).standard_normal((2, 224, 224, 3), dtype=np.float32)

    def run() -> None:
        net(x)
        train_step(net, x, np.zeros(2, np.int64), SGD(learning_rate=1e-4, momentum=0.9))
        net.project(x, "conv5:3", allow_negative=True)
    return run


TASKS = {"ours-step": ours_step, "torch-step": torch_step, "ours-scan": ours_scan, "torch-scan": torch_scan,
         "ours-read": functools.partial(ours_scan, True), "torch-read": functools.partial(torch_scan, True),
         "first-call": first_call}


def _run(task: str, **environment: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "benchmarks.memory", task], check=True, capture_output=True, text=True,
                          env={**os.environ, **environment})
    return json.loads(done.stdout.splitlines()[-1])


def rows() -> Iterator[Row]:
    """Rows whose numbers are bytes (shown as MB) and, for the first call, seconds of processor time."""
    for name, work in (("step", "peak memory: zfnet training step, batch 16"),
                       ("scan", "peak memory: scan with alexnet, batch 20"),
                       ("read", "peak memory: the same, and all patches are read")):
        _run(f"ours-{name}")  # compiled kernels are not what is measured
        values = {OURS: _run(f"ours-{name}")["bytes"] * 1e-9, "torch": _run(f"torch-{name}")["bytes"] * 1e-9}
        yield Row(work, values, {key: [value] for key, value in values.items()}, note=UNIT)
    with tempfile.TemporaryDirectory() as folder:
        taken = _run("first-call", ZFCORE_CACHE_DIR=folder)
    yield Row("first call: zfnet forward, step, projection", {OURS: taken["seconds"]}, {OURS: [taken["seconds"]]},
              note=f"processor time {taken['processor']:.0f} s")


def main(task: str) -> None:
    """Set up, then measure one run."""
    call = TASKS[task]()
    before, clock, processor = _resident(), time.perf_counter(), time.process_time()
    call()
    print(json.dumps({"bytes": _peak() - before, "seconds": time.perf_counter() - clock,
                      "processor": time.process_time() - processor}))


if __name__ == "__main__":
    main(sys.argv[1])
