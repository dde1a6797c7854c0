"""What the processor of this host can run, for tests that try the code of several processors."""

import platform

import pytest
from numpy._core._multiarray_umath import __cpu_features__

# OpenBLAS's name of a core, and what its code needs beyond what NumPy needs to be imported at all
X86_CORES = {
    "Prescott": (),
    "Nehalem": (),
    "Haswell": ("AVX2", "FMA3"),
    "SkylakeX": ("AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL"),
}
ARM_CORES = {"ARMV8": (), "NEOVERSEN1": ("ASIMDHP", "ASIMDDP")}
CORES = X86_CORES if platform.machine().lower() in ("x86_64", "amd64") else ARM_CORES
GENERIC = "nehalem" if CORES is X86_CORES else "generic"  # LLVM's name: neither AVX nor F16C


def lacks(core: str) -> str:
    """Return why this host cannot run OpenBLAS's code for `core`, or nothing."""
    missing = [name for name in CORES[core] if not __cpu_features__.get(name)]
    return f"this processor has no {', '.join(missing)}, which {core} needs" if missing else ""


def core_types() -> list[object]:
    """Parameters of a test: every core, those that cannot be tried skipped with their reason."""
    return [
        pytest.param(core, marks=pytest.mark.skipif(bool(lacks(core)), reason=lacks(core)))
        for core in CORES
    ]
