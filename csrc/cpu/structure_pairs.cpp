// Histogram of pair distances of one periodic system, by species, without ever listing the pairs.
//
// Atoms are sorted into bins about half the range wide; bins that follow one another along the third axis are contiguous
// in memory, so an atom meets its neighbours in runs. Each pair is met once: from the bin that comes first. Counts are
// whole numbers, so the result does not depend on threads.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "cells.hpp"
#include "common.hpp"
#include "structure.hpp"

namespace {

constexpr int64_t RUN = 128;  // distances computed together

struct Grid {
    int64_t n[3];      // bins along each axis
    int64_t reach[3];  // how many bins the range spans
    double cell[9];
};

struct Sorted {
    std::vector<double> x, y, z;
    std::vector<int64_t> start;  // (n_species, n_bins + 1)
};

inline __attribute__((always_inline)) void count_run(const double* x, const double* y, const double* z, int64_t n,
                                                     double xi, double yi, double zi, double dr, double last,
                                                     int64_t* histogram) {
    int32_t bins[RUN];
    for (int64_t begin = 0; begin < n; begin += RUN) {
        const int64_t size = std::min(RUN, n - begin);
        for (int64_t j = 0; j < size; ++j) {
            const double dx = x[begin + j] - xi, dy = y[begin + j] - yi, dz = z[begin + j] - zi;
            const double r = std::sqrt(dx * dx + dy * dy + dz * dz);
            bins[j] = static_cast<int32_t>(std::min(r / dr + rk::EDGE, last));
        }
        for (int64_t j = 0; j < size; ++j) ++histogram[bins[j]];
    }
}

void run_baseline(const double* x, const double* y, const double* z, int64_t n, double xi, double yi, double zi, double dr,
                  double last, int64_t* histogram) {
    count_run(x, y, z, n, xi, yi, zi, dr, last, histogram);
}

#if defined(__x86_64__)
// Without FMA, like every other place that decides on which side of an edge a number falls.
__attribute__((target("avx2"))) void run_avx2(const double* x, const double* y, const double* z, int64_t n, double xi,
                                              double yi, double zi, double dr, double last, int64_t* histogram) {
    count_run(x, y, z, n, xi, yi, zi, dr, last, histogram);
}
#endif

using Run = void (*)(const double*, const double*, const double*, int64_t, double, double, double, double, double,
                     int64_t*);

Run best_run() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return run_avx2;
#endif
    return run_baseline;
}

Grid grid_of(const double* cell, int64_t n_atoms, double range) {
    Grid grid;
    std::copy(cell, cell + 9, grid.cell);
    double inverse[9], heights[3];
    rk::inverse(cell, inverse);
    double total = 1.0;
    for (int a = 0; a < 3; ++a) {
        const double *column = inverse + a;
        heights[a] = 1.0 / std::sqrt(column[0] * column[0] + column[3] * column[3] + column[6] * column[6]);
        grid.n[a] = static_cast<int64_t>(std::min(std::max(std::floor(2.0 * heights[a] / range), 1.0), 1e6));
        total *= static_cast<double>(grid.n[a]);
    }
    // Not many more bins than atoms.
    while (total > 2.0 * n_atoms + 64.0) {
        total = 1.0;
        for (int a = 0; a < 3; ++a) {
            grid.n[a] = std::max<int64_t>(grid.n[a] * 4 / 5, 1);
            total *= static_cast<double>(grid.n[a]);
        }
    }
    for (int a = 0; a < 3; ++a)
        grid.reach[a] = static_cast<int64_t>(std::ceil(range * static_cast<double>(grid.n[a]) / heights[a]));
    return grid;
}

Sorted sort_atoms(const Grid& grid, const double* fractional, const int64_t* codes, int64_t n_atoms, int64_t n_species) {
    const int64_t n_bins = grid.n[0] * grid.n[1] * grid.n[2];
    Sorted sorted{std::vector<double>(n_atoms), std::vector<double>(n_atoms), std::vector<double>(n_atoms),
                  std::vector<int64_t>(n_species * n_bins + 1, 0)};
    std::vector<int64_t> key(n_atoms);
    for (int64_t i = 0; i < n_atoms; ++i) {
        int64_t bin[3];
        for (int a = 0; a < 3; ++a) {
            const int64_t place = static_cast<int64_t>(fractional[3 * i + a] * static_cast<double>(grid.n[a]));
            bin[a] = std::min(std::max<int64_t>(place, 0), grid.n[a] - 1);
        }
        key[i] = codes[i] * n_bins + (bin[0] * grid.n[1] + bin[1]) * grid.n[2] + bin[2];
        ++sorted.start[key[i] + 1];
    }
    for (int64_t k = 0; k < n_species * n_bins; ++k) sorted.start[k + 1] += sorted.start[k];
    std::vector<int64_t> next(sorted.start.begin(), sorted.start.end() - 1);
    for (int64_t i = 0; i < n_atoms; ++i) {
        const double *f = fractional + 3 * i, *c = grid.cell;
        const int64_t at = next[key[i]]++;
        sorted.x[at] = f[0] * c[0] + f[1] * c[3] + f[2] * c[6];
        sorted.y[at] = f[0] * c[1] + f[1] * c[4] + f[2] * c[7];
        sorted.z[at] = f[0] * c[2] + f[1] * c[5] + f[2] * c[8];
    }
    return sorted;
}

inline int64_t floor_divide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Everything one bin meets: rows of bins (o1, o2) of the half space, cut where they leave the cell.
struct Walk {
    const Grid& grid;
    const Sorted& sorted;
    Run run;
    int64_t n_species, n_bins_r;
    double dr;
    int64_t* counts;  // (n_species, n_species, n_bins_r + 1), a <= b

    int64_t* histogram(int64_t a, int64_t b) const {
        return counts + (std::min(a, b) * n_species + std::max(a, b)) * (n_bins_r + 1);
    }

    // Atoms of bin `own` against the bins third ... third + length - 1 of a row, shifted by whole cells.
    void against(int64_t own, int64_t row, int64_t third, int64_t length, const int64_t* shift) const {
        const int64_t n_bins = grid.n[0] * grid.n[1] * grid.n[2];
        double s[3];
        for (int k = 0; k < 3; ++k)
            s[k] = shift[0] * grid.cell[k] + shift[1] * grid.cell[3 + k] + shift[2] * grid.cell[6 + k];
        for (int64_t b = 0; b < n_species; ++b) {
            const int64_t begin = sorted.start[b * n_bins + row + third];
            const int64_t n = sorted.start[b * n_bins + row + third + length] - begin;
            if (n == 0) continue;
            for (int64_t a = 0; a < n_species; ++a)
                for (int64_t i = sorted.start[a * n_bins + own]; i < sorted.start[a * n_bins + own + 1]; ++i)
                    run(sorted.x.data() + begin, sorted.y.data() + begin, sorted.z.data() + begin, n, sorted.x[i] - s[0],
                        sorted.y[i] - s[1], sorted.z[i] - s[2], dr, static_cast<double>(n_bins_r), histogram(a, b));
        }
    }

    // Pairs inside one bin.
    void within(int64_t own) const {
        const int64_t n_bins = grid.n[0] * grid.n[1] * grid.n[2];
        for (int64_t a = 0; a < n_species; ++a)
            for (int64_t i = sorted.start[a * n_bins + own]; i < sorted.start[a * n_bins + own + 1]; ++i)
                for (int64_t b = a; b < n_species; ++b) {
                    const int64_t begin = a == b ? i + 1 : sorted.start[b * n_bins + own];
                    const int64_t n = sorted.start[b * n_bins + own + 1] - begin;
                    run(sorted.x.data() + begin, sorted.y.data() + begin, sorted.z.data() + begin, n, sorted.x[i],
                        sorted.y[i], sorted.z[i], dr, static_cast<double>(n_bins_r), histogram(a, b));
                }
    }

    void bin(int64_t b1, int64_t b2, int64_t b3) const {
        const int64_t own = (b1 * grid.n[1] + b2) * grid.n[2] + b3;
        within(own);
        for (int64_t o1 = 0; o1 <= grid.reach[0]; ++o1)
            for (int64_t o2 = o1 == 0 ? 0 : -grid.reach[1]; o2 <= grid.reach[1]; ++o2) {
                int64_t shift[3] = {floor_divide(b1 + o1, grid.n[0]), floor_divide(b2 + o2, grid.n[1]), 0};
                const int64_t row = ((b1 + o1 - shift[0] * grid.n[0]) * grid.n[1] + b2 + o2 - shift[1] * grid.n[1]);
                int64_t from = b3 + (o1 == 0 && o2 == 0 ? 1 : -grid.reach[2]);
                const int64_t to = b3 + grid.reach[2] + 1;
                while (from < to) {
                    shift[2] = floor_divide(from, grid.n[2]);
                    const int64_t end = std::min(to, (shift[2] + 1) * grid.n[2]);
                    against(own, row * grid.n[2], from - shift[2] * grid.n[2], end - from, shift);
                    from = end;
                }
            }
    }
};

}  // namespace

// counts (n_species, n_species, n_bins) int64: ordered pairs (atom of a, atom or image of b) with m dr <= r < (m + 1) dr,
// m < n_bins. fractional (n_atoms, 3) within [0, 1), on `cell`; codes (n_atoms) below n_species. Returns -3 for want of memory.
RK_EXPORT int64_t rk_structure_pairs(const double* fractional, const int64_t* codes, int64_t n_atoms, const double* cell,
                                     int64_t n_species, double dr, int64_t n_bins, int64_t threads, int64_t* counts) try {
    const Grid grid = grid_of(cell, n_atoms, dr * static_cast<double>(n_bins));
    const Sorted sorted = sort_atoms(grid, fractional, codes, n_atoms, n_species);
    const int64_t size = n_species * n_species * (n_bins + 1), total = grid.n[0] * grid.n[1] * grid.n[2];
    std::vector<int64_t> all(threads * size, 0);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < threads; ++part) {
        const Walk walk{grid, sorted, best_run(), n_species, n_bins, dr, all.data() + part * size};
        for (int64_t own = total * part / threads; own < total * (part + 1) / threads; ++own)
            walk.bin(own / (grid.n[1] * grid.n[2]), own / grid.n[2] % grid.n[1], own % grid.n[2]);
    }
    for (int64_t a = 0; a < n_species; ++a)
        for (int64_t b = a; b < n_species; ++b)
            for (int64_t bin = 0; bin < n_bins; ++bin) {
                int64_t found = 0;
                for (int64_t part = 0; part < threads; ++part)
                    found += all[part * size + (a * n_species + b) * (n_bins + 1) + bin];
                counts[(a * n_species + b) * n_bins + bin] = a == b ? 2 * found : found;
                counts[(b * n_species + a) * n_bins + bin] = a == b ? 2 * found : found;
            }
    return 0;
} catch (const std::bad_alloc&) {
    return -3;
}
