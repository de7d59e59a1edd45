//! Finds libtorch, checks its version, compiles the C++ shim in `csrc/` and bakes the library path into every
//! binary and test of this package, so that nobody needs `LD_LIBRARY_PATH`.
//!
//! libtorch is where `LIBTORCH` says (set by `.cargo/config.toml` to the repository's `.torch/torch`, the layout of a
//! PyTorch wheel). tch and PyTorch go in lockstep: another release may link and then misread its arguments, so the
//! version is checked here, where a message can still help.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::exit;

/// The PyTorch release this tch release binds.
const TORCH: &str = "2.11";

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=csrc");

    let root = env::var_os("LIBTORCH")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            fail(
                "LIBTORCH is not set",
                "the directory of libtorch is not known",
                "build from inside the repository, whose .cargo/config.toml sets it",
            )
        });
    let root = root.canonicalize().unwrap_or_else(|error| {
        fail(
            &format!("no libtorch at {}", root.display()),
            &error.to_string(),
            "run `make setup` (CPU) or `make setup FULL=1` (CUDA)",
        )
    });
    check_version(&root);
    compile_shim(&root);
    link(&root.join("lib"));
}

/// Fails unless the libtorch under `root` is a 2.11 release.
fn check_version(root: &Path) {
    let (version, file) = version(root).unwrap_or_else(|| {
        fail(
            &format!("cannot tell the version of libtorch in {}", root.display()),
            "neither version.py, build-version nor include/torch/headeronly/version.h is there",
            "run `make setup`, or point LIBTORCH at the torch/ directory of a PyTorch wheel",
        )
    });
    println!("cargo:rerun-if-changed={}", file.display());
    if version != TORCH && !version.starts_with(&format!("{TORCH}.")) {
        fail(
            &format!("libtorch {version} found, {TORCH}.x needed"),
            &format!("so says {}", file.display()),
            "run `make setup`, or `make setup TORCH=DIR` with a PyTorch 2.11",
        );
    }
}

/// The version of the libtorch under `root` and the file that says so: a wheel has `version.py`, a C++ distribution
/// `build-version`, and every one the header.
fn version(root: &Path) -> Option<(String, PathBuf)> {
    let file = root.join("version.py");
    if let Ok(text) = fs::read_to_string(&file) {
        let line = text.lines().find(|line| line.starts_with("__version__"))?;
        return Some((line.split(['\'', '"']).nth(1)?.to_string(), file));
    }
    let file = root.join("build-version");
    if let Ok(text) = fs::read_to_string(&file) {
        return Some((text.trim().to_string(), file));
    }
    let file = root.join("include/torch/headeronly/version.h");
    let text = fs::read_to_string(&file).ok()?;
    let number = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("#define TORCH_VERSION_{name} ")))?;
        line.split_whitespace().nth(2).map(str::to_string)
    };
    Some((
        format!(
            "{}.{}.{}",
            number("MAJOR")?,
            number("MINOR")?,
            number("PATCH")?
        ),
        file,
    ))
}

fn compile_shim(root: &Path) {
    // -isystem: warnings in PyTorch's own headers are not ours to mend.
    let system = |path: &str| format!("-isystem{}", root.join(path).display());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-isystemcsrc/gloo_stub")
        .flag(system("include"))
        .flag(system("include/torch/csrc/api/include"))
        .opt_level(1)
        // As libtorch itself was built: some of its classes have other members without it.
        .define("NDEBUG", None)
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .warnings(true)
        .files([
            "csrc/shim.cpp",
            "csrc/recompute.cpp",
            "csrc/device.cpp",
            "csrc/linear.cpp",
            "csrc/distributed.cpp",
        ])
        .compile("ijepa_shim");
}

/// Link arguments reach the binaries and the tests of this package alone; hence all of them live in it.
fn link(lib: &Path) {
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    // First where it is now, then where it lies beside a moved repository: target/release/trainer, and target/*/deps/*.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../.torch/torch/lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../../.torch/torch/lib");
}

#[allow(
    clippy::print_stderr,
    reason = "Cargo shows a build script's standard error where it fails"
)]
fn fail(what: &str, why: &str, cure: &str) -> ! {
    eprintln!("\n{what}\n  {why}\n  cure: {cure}\n");
    exit(1)
}
