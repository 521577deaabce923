// The pair potential's row loop for avx512.
#define RK_ISA avx512
#include "pair_impl.hpp"
