// Spreading to and interpolating from the particle mesh for baseline.
#define RK_ISA baseline
#include "grid_impl.hpp"
