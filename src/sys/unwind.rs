//! The unwinder's entry points (Itanium C++ ABI: Exception Handling, 1), which nothing calls where a panic aborts.
//!
//! std refers to them all the same. Defined here, they keep the unwinder and std's printer of backtraces, half of the whole
//! program, from being linked. A panic still says what and where it was; the stripped binary has no names for more.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK`: there is no frame to walk.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_trace: *const c_void, _data: *mut c_void) -> c_int {
    const END_OF_STACK: c_int = 5;
    END_OF_STACK
}

macro_rules! never_called {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                std::process::abort()
            }
        )*
    };
}

never_called! {
    _Unwind_Resume _Unwind_RaiseException _Unwind_DeleteException
    _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_GetDataRelBase
    _Unwind_GetIP _Unwind_GetIPInfo _Unwind_GetCFA _Unwind_FindEnclosingFunction _Unwind_SetGR _Unwind_SetIP
}
