// The neighbour search's inner loop for avx512.
#define RK_ISA avx512
#include "neighbors_collect_impl.hpp"
