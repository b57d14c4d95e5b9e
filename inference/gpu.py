"""What NVIDIA's library says of the GPUs here, if it is installed and there are any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

GIBIBYTE = 1 << 30


class Gpu(NamedTuple):
    """One GPU right now: memory in bytes, power in watts, and the processes that compute on it."""

    name: str
    total: int
    free: int
    power_w: float | None
    busy_percent: int
    pids: frozenset[int]


def in_words(gpu: Gpu) -> str:
    """For a person."""
    taken = f"{(gpu.total - gpu.free) / GIBIBYTE:.1f} of {gpu.total / GIBIBYTE:.1f} GiB taken"
    power = "" if gpu.power_w is None else f", {gpu.power_w:.0f} W"
    return f"{gpu.name}: {gpu.busy_percent} % busy, {taken}{power}"


def gpus() -> tuple[Gpu, ...]:
    """None where there are none, or nothing to ask them with: `pip install nvidia-ml-py`."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        with _opened(pynvml):
            return tuple(_look(pynvml, number) for number in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()


@contextmanager
def _opened(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _look(nvml: Any, number: int) -> Gpu:
    device = nvml.nvmlDeviceGetHandleByIndex(number)
    memory, name = nvml.nvmlDeviceGetMemoryInfo(device), nvml.nvmlDeviceGetName(device)
    try:
        power_w = nvml.nvmlDeviceGetPowerUsage(device) / 1000
    except nvml.NVMLError:  # not every card measures it
        power_w = None
    running = nvml.nvmlDeviceGetComputeRunningProcesses(device)  # a desktop always draws: that does not count
    return Gpu(
        name=name.decode() if isinstance(name, bytes) else name,
        total=memory.total,
        free=memory.free,
        power_w=power_w,
        busy_percent=nvml.nvmlDeviceGetUtilizationRates(device).gpu,
        pids=frozenset(process.pid for process in running),
    )
