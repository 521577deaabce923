// Shells of reciprocal space: which bin of |k| a mode falls into, and the bilinear sums over the modes of a box.
//
// Slots are found in arithmetic without fused operations, in the order in which bins.py does it, so that every route,
// every instruction set and the torch reference put a vector into the same bin.
#pragma once
#include <cstdint>

#include "common.hpp"

namespace rk {

// A length (of a k-vector, or between two atoms) this close below the edge of a bin, in bin widths, belongs above it: equal
// lengths, which crystals and other choices of the same lattice compute with different rounding, fall on the same side.
constexpr double EDGE = 1e-9;

// A box of Miller indices n with n1 >= 0, its metric |k|^2 = n G n, and the bins first + 1 ... first + n_bins.
struct Box {
    double g11, g22, g33, g12, g13, g23;
    int64_t low[3], shape[3];
    double inverse_width;
    int64_t first, n_bins;
};

// k and -k are both counted: every vector with n1 > 0 stands for two, the plane n1 = 0 holds both.
HOST_DEVICE inline double multiplicity(int64_t n1) { return n1 == 0 ? 1.0 : 2.0; }

}  // namespace rk
