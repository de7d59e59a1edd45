//! Compiles the coverage counters of the C libraries.

fn main() {
    println!("cargo::rerun-if-changed=src/coverage.c");
    println!("cargo::rustc-link-arg-bins=-Wl,--wrap=__sanitizer_cov_trace_pc");
    cc::Build::new()
        .file("src/coverage.c")
        .compile("fuzz_coverage");
}
