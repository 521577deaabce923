// Body of the pair row loop; the including file defines RK_ISA, the namespace it lands in.
//
// Per atom, two stages. First the distances of all listed neighbours, eight at a time; those inside the cutoff are
// packed into a buffer. Then the table for the packed pairs only, so that no lane is spent on the list's skin.
// The list is full: every row sums its own force, rows share nothing, and the result is the same for any number of
// threads.
#include <vector>

#include "pair.hpp"
#include "simd.hpp"

namespace rk {
namespace RK_ISA {
namespace {

struct Buffer {
    std::vector<double> dx, dy, dz, r2, species;
    std::vector<int32_t> column;
    void reserve(size_t n) {
        if (dx.size() >= n) return;
        for (auto* v : {&dx, &dy, &dz, &r2, &species}) v->resize(n);
        column.resize(n);
    }
};

// Stage 1: packs the neighbours of row k that are inside the cutoff; returns how many.
template <bool WEIGHTED>
int64_t pack_row(const PairRows& rows, int64_t k, double cutoff_squared, Buffer& buffer) {
    const double* extended = rows.extended;
    const v8d cx = broadcast(extended[4 * k]), cy = broadcast(extended[4 * k + 1]), cz = broadcast(extended[4 * k + 2]);
    const v8d limit = broadcast(cutoff_squared);
    const int64_t begin = rows.row_ptr[k], end = rows.row_ptr[k + 1];
    double *dx = buffer.dx.data(), *dy = buffer.dy.data(), *dz = buffer.dz.data(), *r2 = buffer.r2.data(),
           *species = buffer.species.data();
    int64_t n = 0;
    for (int64_t p = begin; p < end; p += LANES) {
        int32_t tail[LANES];
        const int32_t* column = rows.columns + p;
        unsigned valid = 0xffu;
        if (end - p < LANES) {  // the last, partly filled group
            for (int64_t l = 0; l < LANES; ++l) tail[l] = p + l < end ? column[l] : static_cast<int32_t>(k);
            column = tail;
            valid = (1u << (end - p)) - 1u;
        }
        const double* record[LANES];
        for (int l = 0; l < LANES; ++l) record[l] = extended + 4 * static_cast<int64_t>(column[l]);
        v8d x, y, z, s;
        transpose_8x4(record, x, y, z, s);
        x -= cx;
        y -= cy;
        z -= cz;
        const v8d square = x * x + y * y + z * z;
        const unsigned mask = less_mask(square, limit) & valid;
        compress_store(dx + n, mask, x);
        compress_store(dy + n, mask, y);
        compress_store(dz + n, mask, z);
        compress_store(r2 + n, mask, square);
        compress_store(species + n, mask, s);
        if (WEIGHTED) {
            v8i c;
            std::memcpy(&c, column, sizeof c);
            compress_store(buffer.column.data() + n, mask, c);
        }
        n += __builtin_popcount(mask);
    }
    // Fill the last group with pairs at the cutoff and no extent: the table's last interval is zero.
    store(dx + n, broadcast(0.0));
    store(dy + n, broadcast(0.0));
    store(dz + n, broadcast(0.0));
    store(r2 + n, broadcast(cutoff_squared));
    store(species + n, broadcast(0.0));
    if (WEIGHTED)
        for (int l = 0; l < LANES; ++l) buffer.column[n + l] = static_cast<int32_t>(k);
    return n;
}

template <bool ENERGY, bool VIRIAL, bool WEIGHTED>
void rows_loop(const PairTable& table, const PairRows& rows, const PairOutputs& out, int64_t begin, int64_t end, PairSums& sums) {
    thread_local Buffer buffer;
    const double cutoff_squared = table.cutoff * table.cutoff;
    const double per_angstrom = BLOCKS / (table.cutoff - table.r_min);
    const v8d r_min = broadcast(table.r_min), scale = broadcast(per_angstrom);
    const v8d top = broadcast(BLOCKS), last_block = broadcast(BLOCKS - 1), zero = broadcast(0.0);
    const Lookup16 first(table.blocks), count(table.blocks + BLOCKS);
    const int64_t table_size = (table.n_intervals + 1) * RECORD;
    const double* base[MAX_SPECIES];
    v8d virial[6] = {zero, zero, zero, zero, zero, zero};
    v8d closest = broadcast(cutoff_squared);
    for (int64_t k = begin; k < end; ++k) {
        const int64_t atom = rows.owners[k];
        int64_t species;
        std::memcpy(&species, rows.extended + 4 * k + 3, sizeof species);
        for (int64_t s = 0; s < table.n_species; ++s)
            base[s] = table.coefficients + table.pair_index[species * table.n_species + s] * table_size;
        buffer.reserve(rows.row_ptr[k + 1] - rows.row_ptr[k] + 2 * LANES);
        const int64_t n = pack_row<WEIGHTED>(rows, k, cutoff_squared, buffer);
        const double own_weight = WEIGHTED ? rows.weights[atom] : 1.0;
        v8d fx = zero, fy = zero, fz = zero, energy = zero;
        for (int64_t q = 0; q < n; q += LANES) {
            const v8d dx = load(&buffer.dx[q]), dy = load(&buffer.dy[q]), dz = load(&buffer.dz[q]), r2 = load(&buffer.r2[q]);
            closest = r2 < closest ? r2 : closest;
            const v8d inverse_r = inverse_sqrt(r2);
            v8d u = (r2 * inverse_r - r_min) * scale;
            u = u > zero ? u : zero;  // below r_min: kept inside the table; the caller sees `closest` and refuses
            u = u < top ? u : top;
            const v8d block = truncate(u < last_block ? u : last_block);
            const v8d intervals = count[block];
            const v8d v = first[block] + (u - block) * intervals;
            const v8i interval = __builtin_convertvector(v, v8i);
            const v8d t = v - __builtin_convertvector(interval, v8d);
            const double* record[LANES];
            for (int l = 0; l < LANES; ++l) {
                int64_t s;
                std::memcpy(&s, &buffer.species[q + l], sizeof s);
                record[l] = base[s] + RECORD * static_cast<int64_t>(interval[l]);
            }
            v8d d1, d2, d3, d4, d5, c0;
            transpose_8x4(record, d1, d2, d3, d4);
            if (ENERGY) {
                const double* upper[LANES];
                for (int l = 0; l < LANES; ++l) upper[l] = record[l] + 4;
                v8d unused_a, unused_b;
                transpose_8x4(upper, d5, c0, unused_a, unused_b);
            } else {
                d5 = v8d{record[0][4], record[1][4], record[2][4], record[3][4], record[4][4], record[5][4], record[6][4], record[7][4]};
            }
            v8d weight = broadcast(1.0);
            if (WEIGHTED) {
                for (int l = 0; l < LANES; ++l) weight[l] = 0.5 * (own_weight + rows.weights[rows.owners[buffer.column[q + l]]]);
            }
            if (ENERGY) {
                const v8d e = c0 + t * (d1 + t * (d2 * (1.0 / 2) + t * (d3 * (1.0 / 3) + t * (d4 * (1.0 / 4) + t * d5 * (1.0 / 5)))));
                energy += WEIGHTED ? own_weight * e : e;
            }
            v8d slope = d1 + t * (d2 + t * (d3 + t * (d4 + t * d5)));
            slope *= inverse_r * (intervals * scale);
            if (WEIGHTED) slope *= weight;
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
    const bool weighted = rows.weights != nullptr;
    if (weighted) return rows_loop<true, true, true>(table, rows, out, begin, end, sums);
    if (want_energy && want_virial) return rows_loop<true, true, false>(table, rows, out, begin, end, sums);
    if (want_energy) return rows_loop<true, false, false>(table, rows, out, begin, end, sums);
    if (want_virial) return rows_loop<false, true, false>(table, rows, out, begin, end, sums);
    return rows_loop<false, false, false>(table, rows, out, begin, end, sums);
}

}  // namespace RK_ISA
}  // namespace rk
