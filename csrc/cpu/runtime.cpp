// What the library is: ABI version, compiler, and the instruction set chosen at run time.
#include "common.hpp"
#include "isa.hpp"


namespace rk {

Isa detect_isa() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return Isa::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
    return Isa::baseline;
}

Isa& active_isa() {
    static Isa isa = detect_isa();
    return isa;
}

}  // namespace rk

RK_EXPORT int64_t rk_abi_version() { return 1; }

RK_EXPORT const char* rk_isa() {
    switch (rk::active_isa()) {
        case rk::Isa::avx512: return "avx512";
        case rk::Isa::avx2: return "avx2";
        default: return "baseline";
    }
}

// For tests: 0 baseline, 1 avx2, 2 avx512. Returns -1, and changes nothing, where the processor lacks it.
RK_EXPORT int64_t rk_set_isa(int64_t isa) {
    if (isa < 0 || isa > static_cast<int64_t>(rk::detect_isa())) return -1;
    rk::active_isa() = static_cast<rk::Isa>(isa);
    return 0;
}

RK_EXPORT const char* rk_compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "g++ " __VERSION__;
#endif
}
