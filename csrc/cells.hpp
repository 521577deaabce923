// 3×3 cell algebra, rows a, b, c; shared by host and device.
#pragma once
#include "common.hpp"

namespace rk {

// Row vector times matrix: out = v M, M row-major 3×3.
HOST_DEVICE inline void row_times_matrix(const double* v, const double* m, double* out) {
    for (int b = 0; b < 3; ++b) out[b] = v[0] * m[b] + v[1] * m[3 + b] + v[2] * m[6 + b];
}

// Inverse of a row-major 3×3 matrix; returns the determinant.
HOST_DEVICE inline double inverse(const double* m, double* out) {
    const double c0 = m[4] * m[8] - m[5] * m[7];
    const double c1 = m[5] * m[6] - m[3] * m[8];
    const double c2 = m[3] * m[7] - m[4] * m[6];
    const double determinant = m[0] * c0 + m[1] * c1 + m[2] * c2;
    const double r = 1.0 / determinant;
    out[0] = c0 * r;
    out[1] = (m[2] * m[7] - m[1] * m[8]) * r;
    out[2] = (m[1] * m[5] - m[2] * m[4]) * r;
    out[3] = c1 * r;
    out[4] = (m[0] * m[8] - m[2] * m[6]) * r;
    out[5] = (m[2] * m[3] - m[0] * m[5]) * r;
    out[6] = c2 * r;
    out[7] = (m[1] * m[6] - m[0] * m[7]) * r;
    out[8] = (m[0] * m[4] - m[1] * m[3]) * r;
    return determinant;
}

}  // namespace rk
