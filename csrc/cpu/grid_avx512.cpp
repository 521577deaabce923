// Spreading to and interpolating from the particle mesh for avx512.
#define RK_ISA avx512
#include "grid_impl.hpp"
