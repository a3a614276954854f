//! How soon the kernel lets guard run on a CPU that many want (`sched(7)`).

use std::mem::MaybeUninit;

/// The kernel's `struct sched_attr` in its first form, which every kernel takes (`sched_setattr(2)`).
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The shortest slice that the kernel gives, in nanoseconds.
const SHORTEST_SLICE: u64 = 100_000;

/// Asks for short slices of CPU time. From Linux 6.12 on a task with a short slice runs soon after it wakes up: with two
/// hundred processes that want the same CPU guard would wait for half a second otherwise, and a deadline with it. It gets
/// no more CPU time for that, needs no privilege, and children start without (SCHED_FLAG_RESET_ON_FORK). Older kernels
/// and sandboxes do nothing.
pub fn prefer_short_slices() {
    let mut attributes = MaybeUninit::<Attributes>::zeroed();
    let size = size_of::<Attributes>();
    // SAFETY: sched_getattr(2) writes no more than the size that it is given, and all zeros is a value.
    let attributes = unsafe {
        if libc::syscall(libc::SYS_sched_getattr, 0, attributes.as_mut_ptr(), size, 0) != 0 {
            return;
        }
        attributes.assume_init_mut()
    };
    // The reset would take another policy, or a higher priority, from the app.
    if attributes.policy != libc::SCHED_OTHER.unsigned_abs() || attributes.nice < 0 {
        return;
    }
    attributes.flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    attributes.runtime = SHORTEST_SLICE;
    // SAFETY: sched_setattr(2) reads a structure whose size stands in it.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *attributes, 0) };
}
