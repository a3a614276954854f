//! What stdin is.

use std::mem::MaybeUninit;

/// What feeds stdin, where that can be read only once: a pipe or a regular file. The next run would find it empty.
pub fn feeder() -> Option<&'static str> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat(2) writes the structure if it returns 0.
    let mode = unsafe {
        if libc::fstat(libc::STDIN_FILENO, status.as_mut_ptr()) != 0 {
            return None;
        }
        status.assume_init_ref().st_mode
    };
    match mode & libc::S_IFMT {
        libc::S_IFIFO => Some("a pipe"),
        libc::S_IFREG => Some("a regular file"),
        _ => None,
    }
}
