// The neighbour search's inner loop for avx2.
#define RK_ISA avx2
#include "neighbors_collect_impl.hpp"
