// The neighbour search's inner loop for baseline.
#define RK_ISA baseline
#include "neighbors_collect_impl.hpp"
