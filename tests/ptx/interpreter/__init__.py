"""An interpreter of PTX in numpy: all threads of a launch at once, every access checked (docs/gpu.md).

    memory = Memory()
    films = memory.put(array)                       # an address: to be read only
    maps = memory.empty((2, 64, 64), np.float16)    # poisoned, to be written
    executed = launch(text, "kernel", grid, block, [films, 64, maps], memory)
    memory[maps]                                    # the array behind an address

A kernel that a device could not run, or that touches what it must not, raises `KernelError`. Races are listed in
`executed`.
"""

from .errors import KernelError, Race
from .machine import Executed, launch
from .memory import Memory
from .parser import parse

__all__ = ["Executed", "KernelError", "Memory", "Race", "launch", "parse"]
