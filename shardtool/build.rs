//! Compiles the C side of the bridge to libjpeg-turbo (feature `turbo`).

fn main() {
    println!("cargo::rerun-if-changed=csrc");
    #[cfg(feature = "turbo")]
    compile();
}

#[cfg(feature = "turbo")]
fn compile() {
    // Set by the build script of mozjpeg-sys: its generated and its vendored headers.
    let headers = std::env::var_os("DEP_JPEG_INCLUDE").expect("the headers of mozjpeg-sys");
    cc::Build::new()
        .includes(std::env::split_paths(&headers))
        .files(["csrc/errors.c", "csrc/read.c", "csrc/write.c"])
        .std("c11")
        .warnings(true)
        .compile("shardtool_turbo");
}
