// Spreading to and interpolating from the particle mesh for avx2.
#define RK_ISA avx2
#include "grid_impl.hpp"
