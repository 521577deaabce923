// The pair potential's row loop for avx2.
#define RK_ISA avx2
#include "pair_impl.hpp"
