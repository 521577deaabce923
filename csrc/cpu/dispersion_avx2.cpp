// The passes of D3(BJ) dispersion for avx2.
#define RK_ISA avx2
#include "dispersion_impl.hpp"
