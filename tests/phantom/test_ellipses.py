import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mrirecon.phantom.ellipses import SHEPP_LOGAN, Ellipse, image, kspace

small = st.floats(0.1, 0.4)
offset = st.floats(-0.4, 0.4)


def grid(n):
    k = np.arange(n) - n // 2
    return np.meshgrid(k, k, indexing="ij")


def ifft2c(k):
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k), norm="ortho"))


@settings(max_examples=20, deadline=None)
@given(st.builds(Ellipse, st.just(1.0), small, small, offset, offset, st.floats(-3, 3)))
def test_the_closed_form_is_the_transform_of_the_drawing(ellipse):
    ky, kx = grid(64)
    low = np.abs(ky) + np.abs(kx) < 12
    drawn = image((ellipse,), 768)
    shifted = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(drawn))) / 768**2
    sampled = shifted[384 - 32 : 384 + 32, 384 - 32 : 384 + 32]
    np.testing.assert_allclose(kspace((ellipse,), ky, kx)[low], sampled[low], atol=2e-3)


def test_the_head_comes_back_from_its_kspace():
    n = 128
    ky, kx = grid(n)
    back = ifft2c(kspace(SHEPP_LOGAN, ky, kx)) * n
    truth = image(SHEPP_LOGAN, n)
    assert np.abs(back.imag).max() < 0.1
    assert abs(np.median(back.real[60:68, 20:30]) - np.median(truth[60:68, 20:30])) < 0.02
    assert np.linalg.norm(back - truth) < 0.25 * np.linalg.norm(truth)
