/* Coverage of C code: gcc, unlike clang, can only call a function at each edge. This one counts places in what
 * libFuzzer takes for extra counters, in place of libFuzzer's own function, which only complains. */
#include <stdint.h>

/* None of this may call itself. */
#define PLAIN __attribute__((no_sanitize_coverage, no_sanitize("address")))

#define COUNTERS (1 << 14)

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

PLAIN void __wrap___sanitizer_cov_trace_pc(void) {
    uintptr_t place = (uintptr_t)__builtin_return_address(0);
    uint8_t *counter = &counters[(place * 0x9e3779b97f4a7c15u >> 32) % COUNTERS];
    *counter += *counter < 255;
}

/* Comparisons of floating-point numbers, which gcc reports and libFuzzer has no use for. */
PLAIN void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }
PLAIN void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }
