// Host loops over the modes of a box: counts, sums and spreads per shell, and the fields that gradients are made of.
//
// Modes lie as (n1, n2, n3), n3 fastest, complex numbers as pairs of doubles. Sums run plane by plane and the planes are
// added in order, so the result does not depend on the number of threads.
#include "structure.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <stdexcept>
#include <vector>

namespace {

using rk::Box;

// metric: rows of the symmetric 3 x 3 matrix; box: low and shape.
Box box_of(const double* metric, const int64_t* box, double width, int64_t first, int64_t n_bins) {
    return {metric[0], metric[4], metric[8], metric[1], metric[2], metric[5], {box[0], box[1], box[2]},
            {box[3], box[4], box[5]}, 1.0 / width, first, n_bins};
}

// Slots of the modes of one row n1, n2.
inline __attribute__((always_inline)) void row_slots(const Box& box, int64_t i1, int64_t i2, int32_t* slots) {
    const double n1 = static_cast<double>(box.low[0] + i1), n2 = static_cast<double>(box.low[1] + i2);
    const double plane = (box.g11 * n1 * n1 + box.g22 * n2 * n2) + 2.0 * box.g12 * n1 * n2;
    const double along = 2.0 * (box.g13 * n1 + box.g23 * n2);
    const int32_t first = static_cast<int32_t>(std::min<int64_t>(box.first, 1 << 30));
    const int32_t last = static_cast<int32_t>(box.n_bins) + 1;
    for (int64_t i3 = 0; i3 < box.shape[2]; ++i3) {
        const double n3 = static_cast<double>(static_cast<int32_t>(box.low[2] + i3));
        const double squared = (along + box.g33 * n3) * n3 + plane;
        const double shell = std::sqrt(std::max(squared, 0.0)) * box.inverse_width + (0.5 + rk::EDGE);
        const int32_t slot = static_cast<int32_t>(std::min(shell, 1e9)) - first;
        slots[i3] = std::min(std::max(slot, 0), last);
    }
}

void slots_baseline(const Box& box, int64_t i1, int64_t i2, int32_t* slots) { row_slots(box, i1, i2, slots); }

#if defined(__x86_64__)
// Without FMA: a fused product would move vectors across the edges of bins.
__attribute__((target("avx2"))) void slots_avx2(const Box& box, int64_t i1, int64_t i2, int32_t* slots) {
    row_slots(box, i1, i2, slots);
}
#endif

using Slots = void (*)(const Box&, int64_t, int64_t, int32_t*);

Slots best_slots() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return slots_avx2;
#endif
    return slots_baseline;
}

// Re x_a y_b* made symmetric in the two; x and y are the same array for the value itself.
template <bool SAME>
inline double product(const double* x, const double* y, int64_t a, int64_t b) {
    if (SAME) return x[a] * x[b] + x[a + 1] * x[b + 1];
    return 0.5 * ((x[a] * y[b] + x[a + 1] * y[b + 1]) + (y[a] * x[b] + y[a + 1] * x[b + 1]));
}

template <bool SAME, bool SQUARES>
void sums_of_plane(const Box& box, Slots slots_of, int64_t i1, int64_t n_species, const double* x, const double* y,
                   double* sums, int32_t* slots) {
    const int64_t n_pairs = n_species * (n_species + 1) / 2, row = box.shape[2];
    const int64_t stride = 2 * box.shape[0] * box.shape[1] * row;
    const int64_t width = SQUARES ? 2 * n_pairs : n_pairs;
    for (int64_t i2 = 0; i2 < box.shape[1]; ++i2) {
        slots_of(box, i1, i2, slots);
        const int64_t begin = 2 * (i1 * box.shape[1] + i2) * row;
        for (int64_t i3 = 0; i3 < row; ++i3) {
            if (slots[i3] == 0 || slots[i3] > box.n_bins) continue;
            double* into = sums + (slots[i3] - 1) * width;
            const double *xk = x + begin + 2 * i3, *yk = y + begin + 2 * i3;
            for (int64_t a = 0; a < n_species; ++a)
                for (int64_t b = a; b < n_species; ++b) {
                    const double value = product<SAME>(xk, yk, a * stride, b * stride);
                    *into++ += value;
                    if (SQUARES) *into++ += value * value;
                }
        }
    }
}

// Planes are summed side by side in groups of at most this many bytes (one plane at least).
constexpr int64_t GROUP_BYTES = 64 << 20;

constexpr int64_t NO_MEMORY = -3;

using PlaneSums = void (*)(const Box&, Slots, int64_t, int64_t, const double*, const double*, double*, int32_t*);

}  // namespace

// Each returns 0, or -3 without memory. Buffers of threads are allocated before the parallel regions: an exception that
// leaves one ends the process.

// counts (n_bins) int64 += vectors of the box in each bin, k and -k both.
RK_EXPORT int64_t rk_structure_counts(const double* metric, const int64_t* box_, double width, int64_t first,
                                      int64_t n_bins, int64_t threads, int64_t* counts) try {
    const Box box = box_of(metric, box_, width, first, n_bins);
    const Slots slots_of = best_slots();
    std::vector<std::vector<int32_t>> all_slots(threads, std::vector<int32_t>(box.shape[2]));
    std::vector<std::vector<int64_t>> all_own(threads, std::vector<int64_t>(n_bins + 2, 0));
#pragma omp parallel num_threads(threads)
    {
        std::vector<int32_t>& slots = all_slots[omp_get_thread_num()];
        std::vector<int64_t>& own = all_own[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i1 = 0; i1 < box.shape[0]; ++i1) {
            const int64_t twice = box.low[0] + i1 == 0 ? 1 : 2;
            for (int64_t i2 = 0; i2 < box.shape[1]; ++i2) {
                slots_of(box, i1, i2, slots.data());
                for (int64_t i3 = 0; i3 < box.shape[2]; ++i3) own[slots[i3]] += twice;
            }
        }
#pragma omp critical
        for (int64_t bin = 0; bin < n_bins; ++bin) counts[bin] += own[bin + 1];
    }
    return 0;
} catch (const std::bad_alloc&) {
    return NO_MEMORY;
} catch (const std::length_error&) {
    return NO_MEMORY;
}

// sums (n_pairs, n_bins) += symmetric Re x_a y_b*, and squares += their squares where not null, weighted by multiplicity;
// x, y (n_species, modes of the box) complex, the same pointer for the value itself.
RK_EXPORT int64_t rk_structure_sums(const double* metric, const int64_t* box_, double width, int64_t first, int64_t n_bins,
                                    int64_t n_species, const double* x, const double* y, int64_t threads, double* sums,
                                    double* squares) try {
    const Box box = box_of(metric, box_, width, first, n_bins);
    const Slots slots_of = best_slots();
    const int64_t n_pairs = n_species * (n_species + 1) / 2, columns = squares ? 2 * n_pairs : n_pairs;
    const PlaneSums of_plane = x != y ? sums_of_plane<false, false>
                               : squares ? sums_of_plane<true, true>
                                         : sums_of_plane<true, false>;
    const int64_t plane = n_bins * columns, n_planes = box.shape[0];
    const int64_t fitting = GROUP_BYTES / (static_cast<int64_t>(sizeof(double)) * plane);
    const int64_t group = std::min(std::max<int64_t>(fitting, 1), n_planes);
    std::vector<double> planes(group * plane);
    std::vector<std::vector<int32_t>> all_slots(threads, std::vector<int32_t>(box.shape[2]));
    for (int64_t begin = 0; begin < n_planes; begin += group) {
        const int64_t end = std::min(begin + group, n_planes);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (int64_t i1 = begin; i1 < end; ++i1) {
            double* into = planes.data() + (i1 - begin) * plane;
            std::fill(into, into + plane, 0.0);
            of_plane(box, slots_of, i1, n_species, x, y, into, all_slots[omp_get_thread_num()].data());
        }
        for (int64_t i1 = begin; i1 < end; ++i1) {
            const double weight = rk::multiplicity(box.low[0] + i1);
            for (int64_t bin = 0; bin < n_bins; ++bin) {
                const double* from = planes.data() + (i1 - begin) * plane + bin * columns;
                for (int64_t pair = 0; pair < n_pairs; ++pair) {
                    sums[pair * n_bins + bin] += weight * from[squares ? 2 * pair : pair];
                    if (squares) squares[pair * n_bins + bin] += weight * from[2 * pair + 1];
                }
            }
        }
    }
    return 0;
} catch (const std::bad_alloc&) {
    return NO_MEMORY;
} catch (const std::length_error&) {
    return NO_MEMORY;
}

// field_a = multiplicity * sum_b (1 + delta_ab) g_ab[bin] x_b on every mode of the box, 0 outside the bins;
// g (n_pairs, n_bins), x and field (n_species, modes) complex.
RK_EXPORT int64_t rk_structure_field(const double* metric, const int64_t* box_, double width, int64_t first,
                                     int64_t n_bins, int64_t n_species, const double* g, const double* x, int64_t threads,
                                     double* field) try {
    const Box box = box_of(metric, box_, width, first, n_bins);
    const Slots slots_of = best_slots();
    const int64_t row = box.shape[2], stride = 2 * box.shape[0] * box.shape[1] * row;
    // (n_bins + 2, n_species, n_species), zero in the slots outside the range.
    std::vector<double> weights((n_bins + 2) * n_species * n_species, 0.0);
    for (int64_t bin = 0; bin < n_bins; ++bin) {
        double* matrix = weights.data() + (bin + 1) * n_species * n_species;
        int64_t pair = 0;
        for (int64_t a = 0; a < n_species; ++a)
            for (int64_t b = a; b < n_species; ++b, ++pair)
                matrix[a * n_species + b] = matrix[b * n_species + a] = (a == b ? 2.0 : 1.0) * g[pair * n_bins + bin];
    }
    std::vector<std::vector<int32_t>> all_slots(threads, std::vector<int32_t>(row));
#pragma omp parallel num_threads(threads)
    {
        std::vector<int32_t>& slots = all_slots[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 1)
        for (int64_t i1 = 0; i1 < box.shape[0]; ++i1) {
            const double twice = rk::multiplicity(box.low[0] + i1);
            for (int64_t i2 = 0; i2 < box.shape[1]; ++i2) {
                slots_of(box, i1, i2, slots.data());
                const int64_t begin = 2 * (i1 * box.shape[1] + i2) * row;
                for (int64_t a = 0; a < n_species; ++a) {
                    double* out = field + a * stride + begin;
                    for (int64_t i3 = 0; i3 < row; ++i3) {
                        const double* weight = weights.data() + (slots[i3] * n_species + a) * n_species;
                        double real = 0.0, imaginary = 0.0;
                        for (int64_t b = 0; b < n_species; ++b) {
                            const double* from = x + b * stride + begin + 2 * i3;
                            real += weight[b] * from[0];
                            imaginary += weight[b] * from[1];
                        }
                        out[2 * i3] = twice * real;
                        out[2 * i3 + 1] = twice * imaginary;
                    }
                }
            }
        }
    }
    return 0;
} catch (const std::bad_alloc&) {
    return NO_MEMORY;
} catch (const std::length_error&) {
    return NO_MEMORY;
}
