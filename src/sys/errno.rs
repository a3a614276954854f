//! What an error means, and what the C library says of it.

use super::Errno;
use std::ffi::CStr;

/// `No such file or directory`: `strerror(3)`, in the words of the C library that guard is linked with. nix has a table of its own,
/// which is 5 KiB more.
pub fn reason(error: Errno) -> &'static str {
    // SAFETY: the text of a number that an Errno can be is static: guard sets no locale that would have it translated.
    let text = unsafe { CStr::from_ptr(libc::strerror(error as libc::c_int)) };
    text.to_str().unwrap_or("unknown error")
}

/// Whether there are too few descriptors, processes or too little memory for now.
pub fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_text() {
        assert_eq!(reason(Errno::ENOENT), "No such file or directory");
        assert_eq!(reason(Errno::EACCES), "Permission denied");
    }
}
