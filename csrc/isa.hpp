// The instruction sets one source is compiled for; ordered, so that a larger one includes the smaller.
#pragma once

namespace rk {

enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

Isa detect_isa();
Isa& active_isa();

}  // namespace rk
