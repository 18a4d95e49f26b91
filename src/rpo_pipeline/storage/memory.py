"""Peak memory of this process between two moments."""

from pathlib import Path

# ``ru_maxrss`` cannot be set back: it would give every node the peak of the one before.
PEAK, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
KIBIBYTES_OF_A_MEBIBYTE = 1024


def reset_peak() -> bool:
    """Start measuring anew; whether the system can (Linux, where ``clear_refs`` may be written)."""
    try:
        RESET.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak_mebibytes() -> float:
    """Largest resident memory since the reset, in MiB, without that of other processes."""
    (line,) = (line for line in PEAK.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / KIBIBYTES_OF_A_MEBIBYTE
