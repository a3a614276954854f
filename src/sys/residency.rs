//! Memory that guard gives back.

use std::ffi::{c_int, c_void};

/// Forgets the pages of the program's code and constants. The kernel maps sixteen pages around each that is touched, so a program that
/// has done a few things has nearly all of itself in memory; what is needed again comes from the page cache (MADV_DONTNEED of
/// file pages, `madvise(2)`). In all that takes some sixty microseconds, most of them for page faults when the code is
/// needed again.
pub fn forget_code() {
    // SAFETY: dl_iterate_phdr(3) calls the function with a valid structure, for the program itself first.
    unsafe { libc::dl_iterate_phdr(Some(forget_segments), std::ptr::null_mut()) };
}

unsafe extern "C" fn forget_segments(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    const PAGE: usize = 4096;
    // SAFETY: the caller passes a structure whose headers are `dlpi_phnum`. What is not writable is the same in the file, so
    // nothing is lost, and the code that runs here comes back at its next instruction.
    unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        {
            let start = (info.dlpi_addr as usize + header.p_vaddr as usize) & !(PAGE - 1);
            let end = info.dlpi_addr as usize + header.p_vaddr as usize + header.p_memsz as usize;
            libc::madvise(start as *mut c_void, end.next_multiple_of(PAGE) - start, libc::MADV_DONTNEED);
        }
    }
    // No further libraries.
    1
}
