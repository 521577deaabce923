// Pairwise D3(BJ) dispersion: its arguments, and the row loops compiled once per instruction set.
#pragma once
#include <cstdint>

namespace rk {

constexpr int REFERENCES = 8;         // reference systems of an element, at most; tables are padded to it
constexpr int PAIR_FIELDS = 4;        // of a pair of species: R_ab, f_ab⁶, f_ab⁸, 3 s8 Q_a Q_b
constexpr double STEEPNESS = 16.0;    // k1, of the count of neighbours
constexpr double SHARPNESS = 4.0;     // k3, of the weights of reference systems

struct DispersionTable {
    const double* pairs;         // (n_species, PAIR_FIELDS, stride)
    const double* c6;            // (n_species, n_species, REFERENCES, REFERENCES)
    const double* reference_cn;  // (n_species, REFERENCES); negative: there is no such reference
    int64_t n_species, stride, n_references;
    double s6, cutoff, width;
};

// Atoms first, then periodic images: x, y, z, and species and owner as the halves of 64 bits.
struct DispersionRows {
    const double* extended;  // (n_extended + 1, 4)
    const int64_t* row_ptr;
    const int32_t* columns;
    const int32_t* owners;
    int32_t far;             // an entry beyond any cutoff, to fill up groups of eight
};

struct DispersionAtoms {
    double* coordination;    // CN
    double* weights;         // (n_atoms, REFERENCES): L_p(CN)
    double* weight_slopes;   // (n_atoms, REFERENCES): dL_p/dCN
    double* cn_gradient;     // dE/dCN
    double* energy;          // per atom
    double* forces;          // (n_atoms, 3)
};

// The three passes over a range of rows; `virial` (xx yy zz yz xz xy) is added to.
#define RK_DISPERSION_PASSES                                                                                             \
    void dispersion_count(const DispersionTable&, const DispersionRows&, const DispersionAtoms&, int64_t, int64_t);      \
    void dispersion_pairs(const DispersionTable&, const DispersionRows&, const DispersionAtoms&, int64_t, int64_t, double*); \
    void dispersion_chain(const DispersionTable&, const DispersionRows&, const DispersionAtoms&, int64_t, int64_t, double*);
namespace baseline { RK_DISPERSION_PASSES }
namespace avx2 { RK_DISPERSION_PASSES }
namespace avx512 { RK_DISPERSION_PASSES }
#undef RK_DISPERSION_PASSES

}  // namespace rk
