// The tabulated pair sum: its arguments, and the row loop compiled once per instruction set.
#pragma once
#include <cstdint>

namespace rk {

// One record of eight doubles an interval, one cache line: with t in [0, 1) across the interval,
//   dE/dt = d1 + d2 t + d3 t² + d4 t³ + d5 t⁴ ,   E = c0 + d1 t + d2/2 t² + d3/3 t³ + d4/4 t⁴ + d5/5 t⁵ ,
// stored as d1 d2 d3 d4 d5 c0 0 0. Interval n_intervals (r = cutoff) is all zeros. The range [r_min, cutoff] is cut into
// BLOCKS of equal width, block b into count_b intervals starting with first_b.
constexpr int RECORD = 8;
constexpr int BLOCKS = 16;
constexpr int MAX_SPECIES = 64;
constexpr double BLOCK_HAIR = 1e-10;  // of a block's width; more than the rounding of any interval number

struct PairTable {
    const double* coefficients;  // (n_tables, n_intervals + 1, RECORD)
    const double* blocks;        // (2, BLOCKS): first, count
    const int32_t* pair_index;   // (n_species, n_species) -> table
    int64_t n_intervals, n_species;
    double r_min, cutoff;
};

// Atoms first, then periodic images: x, y, z and the species number as bits; rows of neighbours for the atoms.
struct PairRows {
    const double* extended;  // (n_extended + 1, 4)
    const int64_t* row_ptr;
    const int32_t* columns;
    const int32_t* owners;
    const double* weights;   // per atom, or null for all ones
    int32_t far;             // an entry of `extended` beyond any cutoff, to fill up groups of eight
};

struct PairOutputs {
    double* per_atom_energy;  // per atom, or null
    double* forces;           // (n_atoms, 3)
};

// What one chunk of rows adds up: virial xx yy zz yz xz xy, energy, and the square of the shortest distance.
struct PairSums {
    double virial[6], energy, closest_squared;
};

using PairRowLoop = void (*)(const PairTable&, const PairRows&, const PairOutputs&, int64_t begin, int64_t end, bool want_energy,
                             bool want_virial, PairSums&);

namespace baseline { void pair_rows(const PairTable&, const PairRows&, const PairOutputs&, int64_t, int64_t, bool, bool, PairSums&); }
namespace avx2 { void pair_rows(const PairTable&, const PairRows&, const PairOutputs&, int64_t, int64_t, bool, bool, PairSums&); }
namespace avx512 { void pair_rows(const PairTable&, const PairRows&, const PairOutputs&, int64_t, int64_t, bool, bool, PairSums&); }

}  // namespace rk
