//! Functions of shared libraries by name.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

/// Loads a library for the whole process, as if the program were linked against it; it is never unloaded.
pub(super) fn open(name: &CStr) -> Result<(), String> {
    // SAFETY: the name is a C string. Initialisers of the library run, which is what it is loaded for.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        Err(last_error())
    } else {
        Ok(())
    }
}

/// Returns the address of `symbol` among everything that is loaded.
pub(super) fn symbol(symbol: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is a C string.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) })
}

fn last_error() -> String {
    // SAFETY: the text belongs to this thread and stays until its next call of this family.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: not null, hence a C string.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Declares a structure of C functions, found by their names among what is loaded already, else in the first of the
/// libraries that has them.
macro_rules! functions {
    (
        $(#[$attribute:meta])*
        struct $table:ident in [$($library:literal),*] {
            $($name:ident: fn($($argument:ty),*) -> $result:ty,)*
        }
    ) => {
        $(#[$attribute])*
        #[allow(non_snake_case, reason = "the library's own names")]
        struct $table {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl $table {
            fn find() -> Result<Self, String> {
                use $crate::torch::cuda::library::{open, symbol};
                let names = [$(concat!(stringify!($name), "\0")),*];
                let c = |name: &'static str| {
                    std::ffi::CStr::from_bytes_with_nul(name.as_bytes()).expect("ends with zero")
                };
                if symbol(c(names[0])).is_none() {
                    $(open(c(concat!($library, "\0")))?;)*
                }
                Ok($table {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        let address = symbol(c(name))
                            .ok_or_else(|| format!("no library has {}", stringify!($name)))?;
                        // SAFETY: the library's header declares this name with this signature.
                        unsafe {
                            std::mem::transmute::<
                                *mut std::ffi::c_void,
                                unsafe extern "C" fn($($argument),*) -> $result,
                            >(address.as_ptr())
                        }
                    },)*
                })
            }
        }
    };
}
pub(super) use functions;
