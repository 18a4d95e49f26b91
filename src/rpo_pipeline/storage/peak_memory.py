"""Measures the peak memory of this process between two moments."""

from pathlib import Path

# ``ru_maxrss`` cannot be reset, so a node would get the peak of the nodes before it.
PEAK, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
KIBIBYTES_OF_A_MEBIBYTE = 1024


def reset_peak() -> bool:
    """Reset the peak, and tell whether the system can (Linux with a writable ``clear_refs``)."""
    try:
        RESET.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak_mebibytes() -> float:
    """Read the largest resident memory of this process since the reset, in MiB."""
    (line,) = (line for line in PEAK.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / KIBIBYTES_OF_A_MEBIBYTE
