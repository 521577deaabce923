// Coordination sequence: how many nodes of the lifted net are 1, 2, ... links away.
#pragma once
#include "rings.hpp"

namespace rk {
namespace rings {

RK_RINGS bool shells_at(const Net& net, Scratch& s, int32_t root, int32_t n_shells, int64_t* shells) {
    if (!begin(net, s, root)) return false;
    for (int32_t level = 0; level < n_shells; ++level) {
        if (!expand(net, s, level, true)) return false;
        shells[level] = s.start[level + 2] - s.start[level + 1];
    }
    return true;
}

}  // namespace rings
}  // namespace rk
