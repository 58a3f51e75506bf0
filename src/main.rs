//! The `streamer` program.
use std::process::ExitCode;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3, which the bindings do not name: for how many milliseconds freed memory is kept
/// before the system gets it back.
const PURGE_DELAY: mi_option_t = 15;

fn main() -> ExitCode {
    return_memory_at_once();
    streamer::cli::main()
}

/// By default the allocator keeps freed memory for a second. At full speed batches come and go so fast that this is
/// several times what they need. The variable `MIMALLOC_PURGE_DELAY` still counts.
fn return_memory_at_once() {
    // SAFETY: a number is stored in the allocator's table of options, which has this one; any thread may do that.
    unsafe { mi_option_set_default(PURGE_DELAY, 0) }
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: a number is read from the allocator's table of options.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000, "the default of mimalloc 3: has its list of options changed?");
        return_memory_at_once();
        assert_eq!(delay(), 0);
    }
}
