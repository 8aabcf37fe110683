"""How real raw files end: no echo-planar scan is read, and no gradient-echo scan is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from mrirecon.contract.codes import PermanentError
from mrirecon.decompress.preparation.alternation import Lines, judge
from mrirecon.decompress.stage import inspect
from mrirecon.local.bare import archive_of

pytestmark = pytest.mark.slow

ECHO_PLANAR = "echo-planar"
ENDS = {
    "siemens_twix/twixtools_gre.dat": "",
    "siemens_twix/pulseq_rf_meas_MID00243.dat": "",
    "siemens_twix/twixtools_epi.dat": ECHO_PLANAR,
    "ismrmrd_from_siemens/twixtools_gre.h5": "",
    "ismrmrd_from_siemens/pulseq_rf_meas_MID00243.h5": "",
    "ismrmrd_from_siemens/twixtools_epi.h5": ECHO_PLANAR,
    "ismrmrd/shepp_128_c8_r2a2_cal_noise.h5": "",
    "ismrmrd/shepp_oblique_5sl.h5": "",
    "bart/bartphantom_ksp.hdr": "",
    "bart/bartphantom_ksp_n.cfl": "",
    "pulseq_course/02_01_ro_dur_1200_pe+.dat": ECHO_PLANAR,
    "pulseq_course/02_11_ro_dur_240_pe-.dat": ECHO_PLANAR,
    "pulseq_course/04_01_epi_no_fat_sat.dat": ECHO_PLANAR,
    "pulseq_course/04_03_basic_epi_96x96_pe+.dat": ECHO_PLANAR,
    "pulseq_course/04_03_ramp_sampling_epi_96x96_pe+.dat": ECHO_PLANAR,
    "pulseq_course/2024-02-06-160115.dat": "",
    "pulseq_course/2024-02-06-161542.dat": "as strong as the centre of k-space",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_real_file_ends_as_it_should(name, shared_data, tmp_path) -> None:
    path = shared_data / "scans" / name
    if not path.exists():
        pytest.skip("this file is not among the real scans here")
    try:
        inspect(archive_of(path, tmp_path))
        said = ""
    except PermanentError as refused:
        said = str(refused)
    assert (ENDS[name] in said) if ENDS[name] else not said


@pytest.mark.parametrize("coils", ["all coils", "one coil"])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("name", ["brain7_labmidas", "knee_semi8", "phantom16_pulseq128", "sag_semi12"])
def test_real_lines_are_told_from_the_same_read_to_and_fro(name, axis, coils, shared_data) -> None:
    """Fully sampled k-space of real objects, either axis as the readout, every second line turned."""
    path = shared_data / "scans/multicoil" / f"{name}.npz"
    if not path.exists():
        pytest.skip("this file is not among the real scans here")
    kspace = np.moveaxis(np.load(path)["kspace"], axis, 0)
    lines = kspace if coils == "all coils" else kspace.sum(axis=1, keepdims=True)
    place = np.arange(len(lines))
    turned = lines.copy()
    turned[1::2] = turned[1::2, :, ::-1]
    one_way, both_ways = judge([Lines(lines, place)]), judge([Lines(turned, place)])
    assert one_way is not None
    assert not one_way.is_mirrored
    assert not one_way.is_shifted
    assert both_ways is not None
    assert both_ways.is_mirrored
