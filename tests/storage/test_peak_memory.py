import pytest

from rpo_pipeline.storage.peak_memory import peak_mebibytes, reset_peak


@pytest.mark.skipif(not reset_peak(), reason="this system cannot set the peak back")
def test_the_peak_is_that_of_the_time_since_the_reset():
    reset_peak()
    before = peak_mebibytes()
    large = bytearray(200 * 2**20)
    assert 190 < peak_mebibytes() - before < 260
    del large
    assert peak_mebibytes() - before > 190
    reset_peak()
    assert peak_mebibytes() - before < 60
