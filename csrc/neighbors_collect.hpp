// The inner loops of the neighbour search, compiled once per instruction set.
#pragma once
#include <cstdint>

namespace rk {

// Slots [begin, end) of the sorted coordinates.
struct Range {
    int64_t begin, end;
};

// Coordinates of possible neighbours of a block of atoms, packed; room for a vector beyond the last.
struct Candidates {
    double *x, *y, *z;
    int32_t* slot;
    int64_t size;
};

// Where a row goes: candidates inside the near radius, and the others inside the cutoff. Each needs room for all
// candidates and a vector more.
struct Collected {
    int32_t *near, *shell;
    int64_t n_near, n_shell;
};

// An atom or image of a compact row: coordinates, a fourth number to fill the line.
struct alignas(32) Place {
    double r[4];
};

struct NeighborLoops {
    // Pack the slots of `ranges` that are closer than √limit to the box [low, high], in their order; returns how many
    // of them come before the range `home`.
    int64_t (*pack)(const double* x, const double* y, const double* z, const Range* ranges, int64_t n_ranges, int64_t home,
                    const double low[3], const double high[3], double limit, Candidates& out);
    // Candidates by |r − centre|², against two squared radii.
    void (*collect)(const Candidates& from, const double centre[3], double near_squared, double cutoff_squared, Collected& out);
    // Entries of one row that are closer to `centre` than √limit, in their order; returns how many.
    int64_t (*shorten)(const Place* places, const int32_t* columns, int64_t n, const double centre[3], double limit,
                       int32_t* kept);
    // How many of the n keys are smaller than each; false where two are equal. Both arrays have room for 16 more.
    bool (*rank)(const int32_t* keys, int64_t n, int32_t* ranks);
};

namespace baseline { extern const NeighborLoops neighbor_loops; }
namespace avx2 { extern const NeighborLoops neighbor_loops; }
namespace avx512 { extern const NeighborLoops neighbor_loops; }

// Those of the instruction set chosen at run time.
const NeighborLoops& neighbor_loops();

}  // namespace rk
