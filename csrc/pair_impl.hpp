// Body of the pair row loop; the including file defines RK_ISA, the namespace it lands in.
//
// Eight listed neighbours at a time. Groups that are all beyond the cutoff (the list's skin, which stands last in its
// row) are passed over; single ones read the table's last record, which is zero, so nothing is masked. The list is full:
// every row sums its own force, rows share nothing, and the result is the same for any number of threads.
#include "pair.hpp"
#include "simd.hpp"

namespace rk {
namespace RK_ISA {
namespace {

// Addresses of the records of interval n of the tables between one species and all others: (n << 6) + address of table s.
// With at most eight species the addresses are looked up in a register; `n` comes raised by Whole, which is taken off here.
template <bool FEW_SPECIES>
struct Records {
    static constexpr int SHIFT = 6;  // 64 bytes
    static_assert(RECORD * sizeof(double) == 1 << SHIFT, "a record is a cache line");
    int64_t address[MAX_SPECIES];
    v8l first8;
    Records(const PairTable& table, int64_t species) {
        const int64_t size = (table.n_intervals + 1) * RECORD;
        for (int64_t s = 0; s < table.n_species; ++s) {
            const double* start = table.coefficients + table.pair_index[species * table.n_species + s] * size;
            address[s] = reinterpret_cast<int64_t>(start) - static_cast<int64_t>(Whole::MAGIC_BITS << SHIFT);
        }
        if (FEW_SPECIES) std::memcpy(&first8, address, sizeof first8);
    }
    void locate(Whole interval, v8l species, const double* record[LANES]) const {
        v8l start;
        if (FEW_SPECIES) {
            start = lookup8(first8, species);
        } else {
            for (int l = 0; l < LANES; ++l) start[l] = address[species[l]];
        }
        start += (v8l)interval.raised << SHIFT;
        std::memcpy(record, &start, sizeof start);
    }
};

// Eight pairs between the two stages.
struct Group {
    v8d dx, dy, dz;
    v8d t, slope_scale;  // place in the interval, and (dt/dr)/r
    const double* record[LANES];
    double weight[LANES];
};

template <bool ENERGY, bool VIRIAL, bool WEIGHTED, bool FEW_SPECIES>
void rows_loop(const PairTable& table, const PairRows& rows, const PairOutputs& out, int64_t begin, int64_t end, PairSums& sums) {
    constexpr int GROUPS = 16;  // small enough for the first cache, long enough to keep both stages' pipelines full
    const double per_angstrom = BLOCKS / (table.cutoff - table.r_min);
    const v8d r_min = broadcast(table.r_min), scale = broadcast(per_angstrom);
    const v8d top = broadcast(BLOCKS), last_block = broadcast(BLOCKS - 1), zero = broadcast(0.0), hair = broadcast(BLOCK_HAIR);
    const Lookup16 first(table.blocks), count(table.blocks + BLOCKS);
    v8d virial[6] = {zero, zero, zero, zero, zero, zero};
    const v8d cutoff_squared = broadcast(table.cutoff * table.cutoff);
    v8d closest = cutoff_squared;
    Group groups[GROUPS];
    for (int64_t k = begin; k < end; ++k) {
        const int64_t atom = rows.owners[k];
        const double* centre = rows.extended + 4 * k;
        const v8d cx = broadcast(centre[0]), cy = broadcast(centre[1]), cz = broadcast(centre[2]);
        int64_t species;
        std::memcpy(&species, centre + 3, sizeof species);
        const Records<FEW_SPECIES> records(table, species);
        const double own_weight = WEIGHTED ? rows.weights[atom] : 1.0;
        v8d fx = zero, fy = zero, fz = zero, energy = zero;
        const int64_t row_end = rows.row_ptr[k + 1];
        for (int64_t start = rows.row_ptr[k]; start < row_end; start += GROUPS * LANES) {
            // Stage 1: distances, and where in the table they fall.
            const int64_t stop = row_end - start < GROUPS * LANES ? row_end : start + GROUPS * LANES;
            Group* group = groups;
            for (int64_t p = start; p < stop; p += LANES) {
                const int32_t* column = rows.columns + p;
                int32_t tail[LANES];
                if (row_end - p < LANES) {  // the last group is filled up with the entry that is far from everything
                    for (int64_t l = 0; l < LANES; ++l) tail[l] = p + l < row_end ? column[l] : rows.far;
                    column = tail;
                }
                const double* neighbor[LANES];
                for (int l = 0; l < LANES; ++l) neighbor[l] = rows.extended + 4 * static_cast<int64_t>(column[l]);
                v8d dx, dy, dz, species_bits;
                transpose_8x4(neighbor, dx, dy, dz, species_bits);
                group->dx = dx -= cx;
                group->dy = dy -= cy;
                group->dz = dz -= cz;
                const v8d r2 = dx * dx + dy * dy + dz * dz;
                if (!less_mask(r2, cutoff_squared)) continue;  // all of it skin
                closest = smaller(r2, closest);
                const v8d inverse_r = inverse_sqrt(r2);
                // Below r_min the index is kept inside the table; the caller sees `closest` and refuses the result.
                const v8d u = smaller(larger((r2 * inverse_r - r_min) * scale, zero), top);
                // A hair below a block's end counts as the next block's start (t is then a hair below 0): v must not be
                // rounded up into an interval whose block, and so whose dt/dr, is another one than `intervals` is of.
                const Whole block(smaller(u + hair, last_block));
                const v8d intervals = count[block], block_start = first[block];
                const v8d v = block_start + (u - block.value()) * intervals;
                const Whole interval(larger(v, block_start));
                group->t = v - interval.value();
                group->slope_scale = inverse_r * (intervals * scale);
                records.locate(interval, (v8l)species_bits, group->record);
                if (WEIGHTED)
                    for (int l = 0; l < LANES; ++l)
                        group->weight[l] = column[l] == rows.far ? 0.0 : rows.weights[rows.owners[column[l]]];
                ++group;
            }
            // Stage 2: read the table.
            const Group* const last = group;
            for (group = groups; group < last; ++group) {
                const double* const* record = group->record;
                const v8d t = group->t, dx = group->dx, dy = group->dy, dz = group->dz;
                v8d d1, d2, d3, d4, d5, c0;
                transpose_8x4(record, d1, d2, d3, d4);
                if (ENERGY) {
                    const double* upper[LANES];
                    for (int l = 0; l < LANES; ++l) upper[l] = record[l] + 4;
                    v8d unused_a, unused_b;
                    transpose_8x4(upper, d5, c0, unused_a, unused_b);
                    const v8d e = c0 + t * (d1 + t * (d2 * (1.0 / 2) + t * (d3 * (1.0 / 3) + t * (d4 * (1.0 / 4) + t * d5 * (1.0 / 5)))));
                    energy += WEIGHTED ? own_weight * e : e;
                } else {
                    d5 = v8d{record[0][4], record[1][4], record[2][4], record[3][4], record[4][4], record[5][4], record[6][4], record[7][4]};
                }
                v8d slope = (d1 + t * (d2 + t * (d3 + t * (d4 + t * d5)))) * group->slope_scale;
                if (WEIGHTED) slope *= 0.5 * (own_weight + load(group->weight));
                const v8d gx = slope * dx, gy = slope * dy, gz = slope * dz;
                fx += gx;
                fy += gy;
                fz += gz;
                if (VIRIAL) {
                    virial[0] += gx * dx;
                    virial[1] += gy * dy;
                    virial[2] += gz * dz;
                    virial[3] += gy * dz;
                    virial[4] += gx * dz;
                    virial[5] += gx * dy;
                }
            }
        }
        out.forces[3 * atom] = sum(fx);
        out.forces[3 * atom + 1] = sum(fy);
        out.forces[3 * atom + 2] = sum(fz);
        if (ENERGY) {
            const double half = 0.5 * sum(energy);
            sums.energy += half;
            if (out.per_atom_energy) out.per_atom_energy[atom] = half;
        }
    }
    for (int c = 0; c < 6; ++c) sums.virial[c] = VIRIAL ? -0.5 * sum(virial[c]) : 0.0;
    for (int l = 0; l < LANES; ++l) sums.closest_squared = closest[l] < sums.closest_squared ? closest[l] : sums.closest_squared;
}

}  // namespace

void pair_rows(const PairTable& table, const PairRows& rows, const PairOutputs& out, int64_t begin, int64_t end, bool want_energy,
               bool want_virial, PairSums& sums) {
    const bool few = table.n_species <= 8;
    if (rows.weights) return (few ? rows_loop<true, true, true, true> : rows_loop<true, true, true, false>)(table, rows, out, begin, end, sums);
    if (!few) return rows_loop<true, true, false, false>(table, rows, out, begin, end, sums);
    if (want_energy && want_virial) return rows_loop<true, true, false, true>(table, rows, out, begin, end, sums);
    if (want_energy) return rows_loop<true, false, false, true>(table, rows, out, begin, end, sums);
    if (want_virial) return rows_loop<false, true, false, true>(table, rows, out, begin, end, sums);
    return rows_loop<false, false, false, true>(table, rows, out, begin, end, sums);
}

}  // namespace RK_ISA
}  // namespace rk
