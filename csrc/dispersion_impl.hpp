// Bodies of the passes of D3(BJ) dispersion; the including file defines RK_ISA, the namespace they land in.
//
// Eight listed neighbours at a time over full rows: every row adds up what belongs to its own atom and nothing else, so
// rows share nothing and sums do not depend on the number of threads. Groups that are all skin are passed over.
#include <vector>

#include "dispersion.hpp"
#include "simd.hpp"

namespace rk {
namespace RK_ISA {
namespace {

// exp(x) for x ≤ 700 to a few units in the last place: x = n ln 2 + r, the Taylor series of exp(r), and n in the exponent.
inline v8d exponential(v8d x) {
    constexpr double ROUND = 6755399441055744.0;  // 1.5 · 2⁵²: adding it leaves the nearest whole number in the low bits
    x = larger(x, broadcast(-700.0));
    const v8d raised = x * 1.4426950408889634 + ROUND;
    const v8d n = raised - ROUND;
    const v8d r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    v8d p = broadcast(1.0 / 479001600);
    constexpr double INVERSE_FACTORIALS[] = {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
                                             1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0};
    for (double c : INVERSE_FACTORIALS) p = p * r + c;
    const v8l exponent = ((v8l)raised - (v8l)broadcast(ROUND) + 1023) << 52;
    return p * (v8d)exponent;
}

inline v8d only(v8l mask, v8d x) { return (v8d)(mask & (v8l)x); }

// A row of values by species, read at eight species at once; with at most eight species the row lives in a register.
template <bool FEW>
inline v8d by_species(const double* row, v8l species) {
    if (FEW) return (v8d)lookup8((v8l)load(row), species);
    v8d out;
    for (int l = 0; l < LANES; ++l) out[l] = row[species[l]];
    return out;
}

struct Centre {
    int64_t atom, species;
    v8d x, y, z;
    Centre(const DispersionRows& rows, int64_t k) : atom(rows.owners[k]) {
        const double* record = rows.extended + 4 * k;
        x = broadcast(record[0]);
        y = broadcast(record[1]);
        z = broadcast(record[2]);
        int64_t bits;
        std::memcpy(&bits, record + 3, sizeof bits);
        species = bits & 0xffffffff;
    }
};

// Eight neighbours: vectors, distances, and the switch that ends every pair at the cutoff.
struct Group {
    v8d dx, dy, dz, r, inverse_r;
    v8l species, owner, inside;
    v8d fade, fade_slope;  // S(r) and dS/dr

    // False where all of them are beyond the cutoff.
    bool read(const DispersionTable& table, const DispersionRows& rows, const Centre& centre, int64_t p, int64_t end) {
        const int32_t* column = rows.columns + p;
        int32_t tail[LANES];
        if (end - p < LANES) {
            for (int64_t l = 0; l < LANES; ++l) tail[l] = p + l < end ? column[l] : rows.far;
            column = tail;
        }
        const double* neighbor[LANES];
        for (int l = 0; l < LANES; ++l) neighbor[l] = rows.extended + 4 * static_cast<int64_t>(column[l]);
        v8d bits;
        transpose_8x4(neighbor, dx, dy, dz, bits);
        dx -= centre.x;
        dy -= centre.y;
        dz -= centre.z;
        v8d r2 = dx * dx + dy * dy + dz * dz;
        const v8d cutoff_squared = broadcast(table.cutoff * table.cutoff);
        if (!less_mask(r2, cutoff_squared)) return false;
        inside = (v8l)(r2 < cutoff_squared);
        r2 = larger(r2, broadcast(1e-20));  // two atoms on one spot: a large 1/r, not an infinite one
        inverse_r = inverse_sqrt(r2);
        r = r2 * inverse_r;
        species = (v8l)bits & 0xffffffff;
        owner = (v8l)bits >> 32;
        const double per_width = table.width > 0.0 ? 1.0 / table.width : 0.0;
        const v8d t = smaller(larger((r - (table.cutoff - table.width)) * per_width, broadcast(0.0)), broadcast(1.0));
        fade = 1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t));
        fade_slope = -30.0 * per_width * t * t * (1.0 - t) * (1.0 - t);
        return true;
    }
};

struct Sums {
    v8d fx = broadcast(0.0), fy = fx, fz = fx;
    // Adds g r_ij, the force on i; `virial` is of half the pair.
    void add(const Group& group, v8d g, v8d virial[6]) {
        const v8d gx = g * group.dx, gy = g * group.dy, gz = g * group.dz;
        fx += gx;
        fy += gy;
        fz += gz;
        virial[0] += gx * group.dx;
        virial[1] += gy * group.dy;
        virial[2] += gz * group.dz;
        virial[3] += gy * group.dz;
        virial[4] += gx * group.dz;
        virial[5] += gx * group.dy;
    }
};

// L_p = exp[−k3 (CN − CN_p)²] / Σ_p' exp[…] and dL_p/dCN; the largest exponent is taken off first, so the sum is at least 1.
void weigh(const double* reference_cn, double coordination, double* weights, double* slopes) {
    double largest = -1e300, total = 0.0, mean = 0.0;
    for (int p = 0; p < REFERENCES; ++p) {
        const double d = coordination - reference_cn[p];
        if (reference_cn[p] >= 0.0 && -SHARPNESS * d * d > largest) largest = -SHARPNESS * d * d;
    }
    for (int p = 0; p < REFERENCES; ++p) {
        const double d = coordination - reference_cn[p];
        weights[p] = reference_cn[p] >= 0.0 ? std::exp(-SHARPNESS * d * d - largest) : 0.0;
        slopes[p] = -2.0 * SHARPNESS * d;
        total += weights[p];
    }
    for (int p = 0; p < REFERENCES; ++p) {
        weights[p] /= total;
        mean += weights[p] * slopes[p];
    }
    for (int p = 0; p < REFERENCES; ++p) slopes[p] = weights[p] * (slopes[p] - mean);
}

// CN_i = Σ_j n(r_ij), n = S(r) / (1 + e), e = exp(k1 − k1 R_ab / r).
template <bool FEW>
void count_rows(const DispersionTable& table, const DispersionRows& rows, const DispersionAtoms& atoms, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
        const Centre centre(rows, k);
        const double* radii = table.pairs + centre.species * PAIR_FIELDS * table.stride;
        v8d count = broadcast(0.0);
        Group group;
        for (int64_t p = rows.row_ptr[k]; p < rows.row_ptr[k + 1]; p += LANES) {
            if (!group.read(table, rows, centre, p, rows.row_ptr[k + 1])) continue;
            const v8d e = exponential(STEEPNESS - STEEPNESS * by_species<FEW>(radii, group.species) * group.inverse_r);
            count += only(group.inside, group.fade / (1.0 + e));
        }
        atoms.coordination[centre.atom] = sum(count);
        weigh(table.reference_cn + centre.species * REFERENCES, atoms.coordination[centre.atom],
              atoms.weights + centre.atom * REFERENCES, atoms.weight_slopes + centre.atom * REFERENCES);
    }
}

// E_i = −½ Σ_j C6_ij D(r_ij), D = S [s6/(r⁶ + f⁶) + 3 s8 Q_a Q_b/(r⁸ + f⁸)], its forces at fixed CN, and dE/dCN_i.
// C6_ij = Σ_q V_bq L_q(CN_j) with V_bq = Σ_p L_p(CN_i) C6_ab,pq, which is of the row.
template <bool FEW>
void pair_rows(const DispersionTable& table, const DispersionRows& rows, const DispersionAtoms& atoms, int64_t begin, int64_t end,
               double* virial_out) {
    const int64_t stride = table.stride, used = table.n_references;
    std::vector<double> of_row(2 * REFERENCES * stride, 0.0);
    double* const v = of_row.data();
    double* const v_slope = v + REFERENCES * stride;
    const v8d s6 = broadcast(table.s6);
    v8d virial[6] = {};
    for (int64_t k = begin; k < end; ++k) {
        const Centre centre(rows, k);
        const double* own = atoms.weights + centre.atom * REFERENCES;
        const double* own_slope = atoms.weight_slopes + centre.atom * REFERENCES;
        for (int64_t b = 0; b < table.n_species; ++b) {
            const double* c6 = table.c6 + (centre.species * table.n_species + b) * REFERENCES * REFERENCES;
            v8d value = broadcast(0.0), slope = value;
            for (int64_t p = 0; p < used; ++p) {
                value += own[p] * load(c6 + p * REFERENCES);
                slope += own_slope[p] * load(c6 + p * REFERENCES);
            }
            for (int64_t q = 0; q < used; ++q) {
                v[q * stride + b] = value[q];
                v_slope[q * stride + b] = slope[q];
            }
        }
        const double* fields = table.pairs + centre.species * PAIR_FIELDS * stride;
        v8d energy = broadcast(0.0), gradient = energy;
        Sums force;
        Group group;
        for (int64_t p = rows.row_ptr[k]; p < rows.row_ptr[k + 1]; p += LANES) {
            if (!group.read(table, rows, centre, p, rows.row_ptr[k + 1])) continue;
            const double* other[LANES];
            for (int l = 0; l < LANES; ++l) other[l] = atoms.weights + group.owner[l] * REFERENCES;
            v8d weight[REFERENCES];
            transpose_8x4(other, weight[0], weight[1], weight[2], weight[3]);
            if (used > 4) {
                for (int l = 0; l < LANES; ++l) other[l] += 4;
                transpose_8x4(other, weight[4], weight[5], weight[6], weight[7]);
            }
            v8d c6 = broadcast(0.0), c6_slope = c6;
            for (int64_t q = 0; q < used; ++q) {
                c6 += by_species<FEW>(v + q * stride, group.species) * weight[q];
                c6_slope += by_species<FEW>(v_slope + q * stride, group.species) * weight[q];
            }
            const v8d r2 = group.r * group.r, r4 = r2 * r2, r6 = r4 * r2;
            const v8d sum6 = r6 + by_species<FEW>(fields + stride, group.species);
            const v8d sum8 = r4 * r4 + by_species<FEW>(fields + 2 * stride, group.species);
            const v8d eighth = by_species<FEW>(fields + 3 * stride, group.species);
            const v8d inverse = 1.0 / (sum6 * sum8), inverse6 = inverse * sum8, inverse8 = inverse * sum6;
            const v8d six = s6 * inverse6, eight = eighth * inverse8, damped = six + eight;
            // (dD/dr)/r; far from the cutoff the switch adds nothing
            const v8d slope = group.fade * -(6.0 * r4 * six * inverse6 + 8.0 * r6 * eight * inverse8) +
                              damped * group.fade_slope * group.inverse_r;
            const v8d faded = only(group.inside, damped * group.fade);
            energy += c6 * faded;
            gradient += c6_slope * faded;
            force.add(group, only(group.inside, -c6 * slope), virial);
        }
        atoms.energy[centre.atom] = -0.5 * sum(energy);
        atoms.cn_gradient[centre.atom] = -sum(gradient);
        atoms.forces[3 * centre.atom] = sum(force.fx);
        atoms.forces[3 * centre.atom + 1] = sum(force.fy);
        atoms.forces[3 * centre.atom + 2] = sum(force.fz);
    }
    for (int c = 0; c < 6; ++c) virial_out[c] -= 0.5 * sum(virial[c]);
}

// Forces through the coordination numbers: dE = Σ_i (dE/dCN_i) dCN_i.
template <bool FEW>
void chain_rows(const DispersionTable& table, const DispersionRows& rows, const DispersionAtoms& atoms, int64_t begin, int64_t end,
                double* virial_out) {
    v8d virial[6] = {};
    for (int64_t k = begin; k < end; ++k) {
        const Centre centre(rows, k);
        const double* radii = table.pairs + centre.species * PAIR_FIELDS * table.stride;
        const double own = atoms.cn_gradient[centre.atom];
        Sums force;
        Group group;
        for (int64_t p = rows.row_ptr[k]; p < rows.row_ptr[k + 1]; p += LANES) {
            if (!group.read(table, rows, centre, p, rows.row_ptr[k + 1])) continue;
            v8d gradient;
            for (int l = 0; l < LANES; ++l) gradient[l] = atoms.cn_gradient[group.owner[l]];
            const v8d reach = STEEPNESS * by_species<FEW>(radii, group.species) * group.inverse_r;
            const v8d e = exponential(STEEPNESS - reach), n = 1.0 / (1.0 + e);
            const v8d slope = n * (group.fade_slope - group.fade * n * e * reach * group.inverse_r);
            force.add(group, only(group.inside, (gradient + own) * slope * group.inverse_r), virial);
        }
        atoms.forces[3 * centre.atom] += sum(force.fx);
        atoms.forces[3 * centre.atom + 1] += sum(force.fy);
        atoms.forces[3 * centre.atom + 2] += sum(force.fz);
    }
    for (int c = 0; c < 6; ++c) virial_out[c] -= 0.5 * sum(virial[c]);
}

}  // namespace

void dispersion_count(const DispersionTable& table, const DispersionRows& rows, const DispersionAtoms& atoms, int64_t begin, int64_t end) {
    (table.n_species <= LANES ? count_rows<true> : count_rows<false>)(table, rows, atoms, begin, end);
}

void dispersion_pairs(const DispersionTable& table, const DispersionRows& rows, const DispersionAtoms& atoms, int64_t begin, int64_t end,
                      double* virial) {
    (table.n_species <= LANES ? pair_rows<true> : pair_rows<false>)(table, rows, atoms, begin, end, virial);
}

void dispersion_chain(const DispersionTable& table, const DispersionRows& rows, const DispersionAtoms& atoms, int64_t begin, int64_t end,
                      double* virial) {
    (table.n_species <= LANES ? chain_rows<true> : chain_rows<false>)(table, rows, atoms, begin, end, virial);
}

}  // namespace RK_ISA
}  // namespace rk
