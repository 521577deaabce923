"""Makes silica glass by molecular dynamics and judges it against diffraction; built on rsa_kernels."""

import os

# Threads that wait for each other give way after some microseconds, not milliseconds, of spinning: on a machine
# with other work a step of 1,500 atoms takes 2 ms instead of 20 to 40, and alone it takes as long as before. It is
# read when torch is loaded, and changes no number.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
