// Atoms wrapped into the cell, their periodic images, and both sorted by bin: what the neighbour search runs over.
//
// Work is divided into parts of consecutive atoms or bins, put together in their order, so nothing depends on threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cells.hpp"
#include "neighbors_scratch.hpp"

namespace rk {

constexpr double HAIR = 1e-9;  // relative and in cells; more than the rounding of fractional coordinates
constexpr int64_t MAX_INDEX = std::numeric_limits<int32_t>::max() - 64;
constexpr int PAD = 8;

// Few atoms are not worth waking threads for.
inline int parts_for(int64_t n, int threads) { return n < 16384 ? 1 : std::min(threads, 8); }

struct Grid {
    double low[3], bins_per_unit[3];
    int64_t count[3], reach[3];
    int64_t total() const { return count[0] * count[1] * count[2]; }
    int32_t bin(const double f[3]) const {
        int64_t b[3];
        for (int a = 0; a < 3; ++a) {
            b[a] = static_cast<int64_t>((f[a] - low[a]) * bins_per_unit[a]);
            b[a] = std::min(count[a] - 1, std::max<int64_t>(0, b[a]));
        }
        return static_cast<int32_t>((b[0] * count[1] + b[1]) * count[2] + b[2]);
    }
};

// Bins about half a cutoff wide, but never many more bins than entries. The widths are a hair more, and the reach is a hair
// longer, than they need be: rounding in f never loses a pair.
inline Grid make_grid(const double low[3], const double high[3], const double height[3], double cutoff, int64_t n_entries) {
    Grid grid;
    double edge = 0.5 * cutoff * (1.0 + 2.0 * HAIR);
    for (int attempt = 0;; ++attempt) {
        for (int a = 0; a < 3; ++a) {
            const double range = std::max(high[a] - low[a], 1e-12);
            const double bins = std::min(1e6, std::max(1.0, std::floor(range * height[a] / edge)));
            grid.count[a] = static_cast<int64_t>(bins);
            grid.low[a] = low[a];
            grid.bins_per_unit[a] = bins / range;
            const double bin_height = height[a] * range / bins;
            grid.reach[a] = static_cast<int64_t>(std::min(bins, std::ceil(cutoff * (1.0 + HAIR) / bin_height)));
        }
        if (grid.total() <= std::min(4 * n_entries + 64, MAX_INDEX)) return grid;
        edge *= 1.3;
    }
}

// Atoms in the cell: fractional coordinates and the lattice vector by which each was moved.
struct Wrapped {
    Scratch<double> fractional;
    Scratch<int32_t> shift;
    double low[3], high[3];  // of the fractional coordinates
    bool finite = true;
};

inline Wrapped wrap(const double* positions, int64_t n_atoms, const double* inverse_cell, const uint8_t* pbc, int threads) {
    Wrapped w{Scratch<double>(3 * n_atoms), Scratch<int32_t>(3 * n_atoms), {}, {}};
    constexpr double none = std::numeric_limits<double>::infinity();
    double low0 = none, low1 = none, low2 = none, high0 = -none, high1 = -none, high2 = -none;
    bool finite = true;
    double* fractional = w.fractional.data();
    int32_t* shift = w.shift.data();
    const int parts = parts_for(n_atoms, threads);
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1) \
    reduction(min : low0, low1, low2) reduction(max : high0, high1, high2) reduction(&& : finite)
    for (int64_t i = 0; i < n_atoms; ++i) {
        double* f = fractional + 3 * i;
        row_times_matrix(positions + 3 * i, inverse_cell, f);
        for (int a = 0; a < 3; ++a) {
            int32_t turns = 0;
            if (!std::isfinite(f[a]) || (pbc[a] && std::fabs(f[a]) > 1e9)) {
                finite = false;
            } else if (pbc[a]) {
                turns = static_cast<int32_t>(f[a]);
                turns -= turns > f[a];
                f[a] -= turns;
            }
            shift[3 * i + a] = -turns;
        }
        low0 = std::min(low0, f[0]), high0 = std::max(high0, f[0]);
        low1 = std::min(low1, f[1]), high1 = std::max(high1, f[1]);
        low2 = std::min(low2, f[2]), high2 = std::max(high2, f[2]);
    }
    w.finite = finite;
    w.low[0] = low0, w.low[1] = low1, w.low[2] = low2;
    w.high[0] = high0, w.high[1] = high1, w.high[2] = high2;
    return w;
}

// Images of one atom: lattice vectors that bring it into the box [low, high], (0, 0, 0) among them.
struct ImageRange {
    int32_t first[3] = {0, 0, 0}, last[3] = {0, 0, 0};
    double count = 1.0;
    ImageRange(const double f[3], const uint8_t* pbc, const double low[3], const double high[3]) {
        for (int a = 0; a < 3; ++a) {
            if (!pbc[a] || (low[a] - f[a] > -1.0 && high[a] - f[a] < 1.0)) continue;  // most atoms, in large cells
            const double from = std::ceil(low[a] - f[a]), to = std::floor(high[a] - f[a]);
            count *= to - from + 1.0;
            if (count > double(MAX_INDEX)) return;  // refused; the numbers might not fit
            first[a] = static_cast<int32_t>(from), last[a] = static_cast<int32_t>(to);
        }
    }
};

// Atoms or images before they are sorted.
struct Unsorted {
    int64_t size = 0;
    Scratch<int32_t> owner, shift, bin;
};

// How many images there are, the number of those of all parts before p in begin[p]; negative where they are too many.
inline int64_t count_images(const Wrapped& atoms, int64_t n_atoms, const uint8_t* pbc, const double low[3], const double high[3],
                            int parts, int64_t* begin) {
    double counted[8];
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        double count = 0.0;
        for (int64_t i = part_begin(n_atoms, p, parts); i < part_begin(n_atoms, p + 1, parts); ++i)
            count += ImageRange(&atoms.fractional[3 * i], pbc, low, high).count - 1.0;
        counted[p] = count;
    }
    double total = double(n_atoms);
    for (int p = 0; p < parts; ++p) {
        begin[p] = static_cast<int64_t>(total) - n_atoms;
        total += counted[p];
        if (!(total <= double(MAX_INDEX))) return -1;
    }
    return static_cast<int64_t>(total) - n_atoms;
}

inline Unsorted make_images(const Wrapped& atoms, int64_t n_atoms, const uint8_t* pbc, const double low[3], const double high[3],
                            const Grid& grid, int parts, const int64_t* begin, int64_t total) {
    Unsorted images{total, Scratch<int32_t>(total), Scratch<int32_t>(3 * total), Scratch<int32_t>(total)};
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        int64_t e = begin[p];
        for (int64_t i = part_begin(n_atoms, p, parts); i < part_begin(n_atoms, p + 1, parts); ++i) {
            const double* f = &atoms.fractional[3 * i];
            const ImageRange range(f, pbc, low, high);
            if (range.count == 1.0) continue;
            for (int32_t sa = range.first[0]; sa <= range.last[0]; ++sa)
                for (int32_t sb = range.first[1]; sb <= range.last[1]; ++sb)
                    for (int32_t sc = range.first[2]; sc <= range.last[2]; ++sc) {
                        if (sa == 0 && sb == 0 && sc == 0) continue;
                        const double g[3] = {f[0] + sa, f[1] + sb, f[2] + sc};
                        images.owner[e] = static_cast<int32_t>(i);
                        images.shift[3 * e] = atoms.shift[3 * i] + sa;
                        images.shift[3 * e + 1] = atoms.shift[3 * i + 1] + sb;
                        images.shift[3 * e + 2] = atoms.shift[3 * i + 2] + sc;
                        images.bin[e++] = grid.bin(g);
                    }
        }
    }
    return images;
}

inline Unsorted as_entries(Wrapped&& atoms, int64_t n_atoms, const Grid& grid, int parts) {
    Unsorted entries{n_atoms, {}, std::move(atoms.shift), Scratch<int32_t>(n_atoms)};
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t i = 0; i < n_atoms; ++i) entries.bin[i] = grid.bin(&atoms.fractional[3 * i]);
    return entries;
}

// Counting sort: order[slot] is the entry at that slot, start[b] the first slot of bin b; entries of a bin keep their order.
inline void sort_by_bin(const Unsorted& entries, int64_t n_bins, int threads, Scratch<int32_t>& start, Scratch<int32_t>& order) {
    const int64_t n = entries.size;
    start = Scratch<int32_t>(n_bins + 1);
    order = Scratch<int32_t>(n);
    // Every part counts into all bins, which must not be more work than counting.
    const int parts = std::max<int64_t>(1, std::min<int64_t>(parts_for(n, threads), 4 * n / n_bins));
    Scratch<int32_t> cursor(parts * n_bins);
    int32_t of_part[9] = {0};
#pragma omp parallel num_threads(parts) if (parts > 1)
    {
#pragma omp for schedule(static)
        for (int p = 0; p < parts; ++p) {
            int32_t* counts = cursor.data() + p * n_bins;
            std::fill(counts, counts + n_bins, 0);
            for (int64_t e = part_begin(n, p, parts); e < part_begin(n, p + 1, parts); ++e) ++counts[entries.bin[e]];
        }
        // From here on p are parts of the bins: their totals, then where every bin begins.
#pragma omp for schedule(static)
        for (int p = 0; p < parts; ++p) {
            int32_t total = 0;
            for (int q = 0; q < parts; ++q)
                for (int64_t b = part_begin(n_bins, p, parts); b < part_begin(n_bins, p + 1, parts); ++b)
                    total += cursor[q * n_bins + b];
            of_part[p + 1] = total;
        }
#pragma omp single
        for (int p = 0; p < parts; ++p) of_part[p + 1] += of_part[p];
#pragma omp for schedule(static)
        for (int p = 0; p < parts; ++p) {
            int32_t next = of_part[p];
            for (int64_t b = part_begin(n_bins, p, parts); b < part_begin(n_bins, p + 1, parts); ++b) {
                start[b] = next;
                for (int q = 0; q < parts; ++q) {
                    const int32_t count = cursor[q * n_bins + b];
                    cursor[q * n_bins + b] = next;
                    next += count;
                }
            }
        }
#pragma omp for schedule(static)
        for (int p = 0; p < parts; ++p)
            for (int64_t e = part_begin(n, p, parts); e < part_begin(n, p + 1, parts); ++e)
                order[cursor[p * n_bins + entries.bin[e]]++] = static_cast<int32_t>(e);
    }
    start[n_bins] = static_cast<int32_t>(n);
}

}  // namespace rk
