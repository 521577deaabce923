// The pair potential's row loop for baseline.
#define RK_ISA baseline
#include "pair_impl.hpp"
