// The passes of D3(BJ) dispersion for baseline.
#define RK_ISA baseline
#include "dispersion_impl.hpp"
