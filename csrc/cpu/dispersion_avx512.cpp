// The passes of D3(BJ) dispersion for avx512.
#define RK_ISA avx512
#include "dispersion_impl.hpp"
