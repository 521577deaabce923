"""Makes silica glass by molecular dynamics and judges it against diffraction; built on rsa_kernels."""
